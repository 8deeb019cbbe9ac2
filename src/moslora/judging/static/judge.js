// Keys, the enlarged view and what a screen reader is told; without it the page is a plain form that works too.
"use strict";
const find = (name) => document.getElementById(name);
const form = find("answer");
// The personal link leaves the address bar, so that nobody reads it over a shoulder.
if (location.pathname.startsWith("/j/")) history.replaceState(null, "", "/");

function say(text) { find("status").textContent = text; }

function areKeysOn() {
  try { return localStorage.getItem("keys") !== "off"; } catch { return true; /* no storage: the default */ }
}

function setUpEnd() {
  addEventListener("keydown", (event) => {
    if (event.key !== "Backspace" || event.ctrlKey || event.altKey || event.metaKey || event.repeat) return;
    if (areKeysOn()) find("undo").click();
  });
}

function setUpPair() {
  const questions = [...form.querySelectorAll("fieldset")];
  const keys = find("keys");
  const isAnswered = (question) => question.querySelector("input:checked") !== null;
  let active = null;

  function mark(question) {
    active = question;
    for (const one of questions) one.classList.toggle("active", one === question && questions.length > 1);
  }
  const firstMissing = () => questions.find((one) => !isAnswered(one)) || null;
  const words = (question) => question.querySelector("legend").textContent;
  function choose(number) {
    const question = active || document.activeElement.closest("fieldset");
    if (question === null) return;
    const input = question.querySelectorAll("input")[number];
    input.checked = true;
    mark(firstMissing());
    if (active === null) find("send").focus();
    const chosen = input.nextElementSibling.firstChild.textContent.trim();
    say(`${words(question)} ${chosen}.${active === null ? " Press Enter to go on." : ""}`);
  }

  form.addEventListener("change", () => mark(firstMissing()));
  addEventListener("focusin", (event) => mark(event.target.closest("fieldset") || firstMissing()));
  // The browser moves the focus to what is missing, and shows why.
  form.addEventListener("invalid", () => say(`Not answered yet: ${words(firstMissing())}`), true);
  form.addEventListener("submit", () => { find("send").disabled = true; });
  addEventListener("pageshow", () => { find("send").disabled = false; });

  keys.checked = areKeysOn();
  const showKeys = () => document.body.classList.toggle("no-keys", !keys.checked);
  keys.addEventListener("change", () => {
    showKeys();
    try { localStorage.setItem("keys", keys.checked ? "on" : "off"); } catch { /* for this page only */ }
  });
  showKeys();

  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || event.repeat || !keys.checked || find("zoom").open) return;
    if (event.key === "Enter" && !event.target.closest("a, button, input, summary")) form.requestSubmit();
    else if ("123".includes(event.key)) choose(Number(event.key) - 1);
    else if (event.key === "Backspace" && !find("undo").disabled) find("undo").click();
    else if (event.key.toLowerCase() === "z") document.querySelector("[data-side]")?.click();
    else return;
    event.preventDefault();
  });

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

if (!form && find("undo")) setUpEnd();
if (form) {
  setUpPair();
  setUpZoom();
  // The next pair's pictures come while this one is looked at.
  addEventListener("load", () => {
    for (const url of (find("later")?.dataset.pictures || "").split(" ")) if (url) new Image().src = url;
  });
}
