"use strict";
(() => {
  const parts = ["state", "lines"].map((id) => document.getElementById(id));

  // Nobody's place among the links is taken from under them.
  const isInUse = () => parts.some((part) => part.contains(document.activeElement));

  // What is new is shown as the server says it: there is one place for the words.
  async function refresh() {
    if (document.hidden || isInUse()) return;
    try {
      const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
      if (!answer.ok) return;
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      if (isInUse()) return; // by now
      for (const part of parts) part.replaceChildren(...page.getElementById(part.id).childNodes);
    } catch {
      // It says as of when it is; the next look may reach the server.
    }
  }

  setInterval(refresh, 10000);
  document.addEventListener("visibilitychange", refresh);
})();
