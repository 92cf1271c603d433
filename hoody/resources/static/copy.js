"use strict";
// Buttons that copy what stands beside them. Without scripts there are none.
function copyButtons(say) {
  for (const button of document.querySelectorAll("[data-copy]")) {
    button.hidden = false;
    button.addEventListener("click", async () => {
      const code = document.getElementById(button.dataset.copy);
      let done = false;
      try {
        await navigator.clipboard.writeText(code.textContent);
        done = true;
      } catch {
        getSelection().selectAllChildren(code);
        done = document.execCommand("copy");
      }
      button.textContent = done ? "Copied" : "Selected";
      say(button.textContent);
      setTimeout(() => (button.textContent = "Copy"), 2000);
    });
  }
}
