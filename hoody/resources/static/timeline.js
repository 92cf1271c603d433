"use strict";
(() => {
  const state = document.getElementById("state");
  const story = document.getElementById("story");
  if (state.dataset.live !== "yes" || !window.EventSource) return;

  const clock = () => new Date().toISOString().slice(11, 19);
  let due = null;

  // What is new is shown as the server says it: there is one place for the words.
  async function refresh() {
    due = null;
    try {
      const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
      if (!answer.ok) throw new Error(answer.status);
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      story.replaceChildren(...page.getElementById("story").childNodes);
      state.textContent = `Live, as of ${clock()} UTC`;
    } catch {
      state.textContent = `As of ${clock()} UTC; the server cannot be reached just now`;
      later(3000);
    }
  }

  function later(milliseconds) {
    if (due === null) due = setTimeout(refresh, milliseconds);
  }

  function follow() {
    const url = new URL(location.href);
    url.searchParams.delete("page");
    url.searchParams.set("follow", "true");
    const source = new EventSource(url);
    source.onopen = () => later(0);
    source.onmessage = () => later(400);
    source.onerror = () => {
      state.textContent = `As of ${clock()} UTC; trying to reach the server`;
      // A browser gives up on any answer but 200; we do not.
      if (source.readyState === EventSource.CLOSED) setTimeout(follow, 3000);
    };
  }
  follow();
})();
