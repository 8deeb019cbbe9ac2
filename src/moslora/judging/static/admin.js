"use strict";
if (location.pathname.startsWith("/admin/")) history.replaceState(null, "", "/admin");
for (const button of document.querySelectorAll("[data-copy]")) {
  button.addEventListener("click", async () => {
    const link = button.parentElement.querySelector("input");
    link.select();
    // Away from this machine and without https there is no clipboard but the old command.
    if (navigator.clipboard) await navigator.clipboard.writeText(link.value); else document.execCommand("copy");
    button.textContent = "Copied";
    document.getElementById("status").textContent = `${link.getAttribute("aria-label")} copied`;
  });
}
