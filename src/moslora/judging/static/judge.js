// Keys, the enlarged view and what a screen reader is told; without it the page is a plain form that works too.
"use strict";
const find = (name) => document.getElementById(name);
const form = find("answer");
// The personal link leaves the address bar, so that nobody reads it over a shoulder.
if (location.pathname.startsWith("/j/")) history.replaceState(null, "", "/");

function say(text) { find("status").textContent = text; }

function setUpPair() {
  const questions = [...form.querySelectorAll("fieldset")];
  const keys = find("keys");
  const isAnswered = (question) => question.querySelector("input:checked") !== null;
  let active = null;

  function mark(question) {
    active = question;
    for (const one of questions) one.classList.toggle("active", one === question && questions.length > 1);
  }
  function goOn() { mark(questions.find((one) => !isAnswered(one)) || null); }
  function choose(number) {
    const focused = document.activeElement.closest("fieldset");
    const question = questions.includes(focused) ? focused : active || questions[questions.length - 1];
    const input = question.querySelectorAll("input")[number];
    input.checked = true;
    const words = question.querySelector("legend").textContent;
    goOn();
    if (active === null) find("send").focus();
    say(`${words} ${input.value}.${active === null ? " Press Enter to go on." : ""}`);
  }

  form.addEventListener("change", () => goOn());
  for (const question of questions) question.addEventListener("focusin", () => mark(question));
  form.addEventListener("submit", () => { find("send").disabled = true; });
  addEventListener("pageshow", () => { find("send").disabled = false; });

  try { keys.checked = localStorage.getItem("keys") !== "off"; } catch { /* no storage: the default */ }
  const showKeys = () => document.body.classList.toggle("no-keys", !keys.checked);
  keys.addEventListener("change", () => {
    showKeys();
    try { localStorage.setItem("keys", keys.checked ? "on" : "off"); } catch { /* for this page only */ }
  });
  showKeys();

  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || event.repeat || !keys.checked || find("zoom").open) return;
    if ("123".includes(event.key)) choose(Number(event.key) - 1);
    else if (event.key === "Backspace" && !find("undo").disabled) find("undo").click();
    else if (event.key.toLowerCase() === "z") document.querySelector("[data-side]")?.click();
    else return;
    event.preventDefault();
  });

  goOn();
  find("place").focus({ preventScroll: true });
  say(document.title);
}

function setUpZoom() {
  const zoom = find("zoom"), large = find("large"), sides = [...document.querySelectorAll("[data-side]")];
  let shown = null;

  function show(button) {
    const image = button.querySelector("img");
    shown = button;
    large.src = image.src;
    large.alt = image.alt;
    find("zoomed").textContent = button.dataset.zoom;
    find("other").hidden = !sides.includes(button);
    if (!zoom.open) zoom.showModal();
  }
  const other = () => { if (sides.includes(shown)) show(sides[1 - sides.indexOf(shown)]); };

  for (const button of document.querySelectorAll("[data-zoom]")) button.addEventListener("click", () => show(button));
  find("other").addEventListener("click", other);
  find("double").addEventListener("click", () => {
    find("double").setAttribute("aria-pressed", String(zoom.classList.toggle("double")));
  });
  find("close").addEventListener("click", () => zoom.close());
  zoom.addEventListener("close", () => shown.focus());
  zoom.addEventListener("keydown", (event) => {
    if (event.key !== "ArrowLeft" && event.key !== "ArrowRight" || !sides.includes(shown)) return;
    show(sides[event.key === "ArrowLeft" ? 0 : 1]);
    event.preventDefault();
  });
}

if (form) {
  setUpPair();
  setUpZoom();
  // The next pair's pictures come while this one is looked at.
  addEventListener("load", () => {
    for (const url of (find("later")?.dataset.pictures || "").split(" ")) if (url) new Image().src = url;
  });
}
