"use strict";
(() => {
  const id = (name) => document.getElementById(name);
  const board = id("board"), facts = id("facts");
  const now = JSON.parse(id("now").textContent);
  const history = now.history;
  let step = now.step, noted = Date.now(), heard = "", asOf = new Date();

  // Words: as the server says them (dashboard.py).

  const two = (number) => String(number).padStart(2, "0");
  function clock(seconds) {
    const minutes = Math.floor(seconds / 60);
    return `${Math.floor(minutes / 60)}:${two(minutes % 60)}:${two(Math.floor(seconds) % 60)}`;
  }
  const timeOfDay = (date) => date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  const receivers = (count) => (count === 1 ? "1 receiver" : `${count} receivers`);

  const HEADLINES = { idle: "Nobody here yet", waiting: "Waiting", complete: "Done", failed: "It broke off" };
  const TITLES = { idle: "Nobody here", waiting: "Waiting", complete: "Done", failed: "Failed" };

  function sentence() {
    switch (now.state) {
      case "idle": return "The page will show it when somebody sends or receives here.";
      case "waiting":
        return now.hasSender
          ? `The sender is here; ${receivers(now.receivers - now.activeReceivers)} still to come.`
          : `${receivers(now.activeReceivers)} here; the sender is still to come.`;
      case "streaming": return `Streaming to ${receivers(now.activeReceivers)}.`;
      case "complete": return `${inWords.size(now.bytes)} in ${inWords.took(now.duration / 1000)}.`;
      default: return now.error;
    }
  }

  function figures() {
    if (now.state === "streaming") {
      const eta = now.etaSec;
      return [
        ["bytes", "Transferred", inWords.size(now.bytes), now.totalBytes === null ? "" : `of ${inWords.size(now.totalBytes)}`],
        ["speed", "Speed", inWords.speed(now.mbps * 1e6), ""],
        ["eta", "Left", eta === null ? "–" : inWords.about(eta), eta === null ? "" : `until ${timeOfDay(new Date(Date.now() + eta * 1000))}`],
        ["receivers", "Receivers", String(now.activeReceivers), `of ${now.receivers}`],
        ["elapsed", "Elapsed", clock(now.elapsedSec), ""],
      ];
    }
    if (now.state === "complete" || now.state === "failed") {
      const end = new Date(now.finishedAt);
      const part = now.totalBytes !== null && now.bytes !== now.totalBytes;
      const list = [
        ["bytes", "Transferred", inWords.size(now.bytes), part ? `of ${inWords.size(now.totalBytes)}` : ""],
        ["speed", "On average", inWords.speed(now.mbps * 1e6), ""],
        ["elapsed", "Took", clock(now.durationSec), ""],
        ["receivers", "Receivers", String(now.receivers), ""],
        ["finished", "Ended", timeOfDay(end), end.toLocaleDateString()],
      ];
      if (now.digest) list.push(["digest", "Digest", now.digest, ""]);
      return list;
    }
    return [
      ["sender", "Sender", now.hasSender ? "here" : "–", ""],
      ["receivers", "Receivers", String(now.activeReceivers), now.receivers ? `of ${now.receivers}` : ""],
    ];
  }

  // What is on the page is changed only where it is different: a screen reader is told
  // of the sentence, and of that only when there is something new to say.

  const say = (element, text) => { if (element.textContent !== text) element.textContent = text; };

  function showFigures() {
    const wanted = figures();
    const there = [...facts.children].map((fact) => fact.dataset.fact);
    if (there.join() !== wanted.map(([name]) => name).join()) {
      facts.replaceChildren(...wanted.map(([name]) => {
        const fact = document.createElement("div"), value = document.createElement("dd");
        fact.dataset.fact = name;
        for (const kind of ["value", "more"]) {
          const part = document.createElement("span");
          part.className = kind;
          value.append(part, " ");
        }
        fact.append(document.createElement("dt"), value);
        return fact;
      }));
    }
    wanted.forEach(([, label, value, more], place) => {
      const fact = facts.children[place];
      say(fact.querySelector("dt"), label);
      say(fact.querySelector(".value"), value);
      say(fact.querySelector(".more"), more);
    });
  }

  function showBar() {
    const bar = id("bar");
    const unknown = now.state === "streaming" && now.percent === null;
    if (unknown) bar.removeAttribute("value");
    else bar.value = now.state === "complete" ? 100 : now.percent ?? part();
  }
  function part() {
    return now.totalBytes ? Math.min(100, (100 * now.bytes) / now.totalBytes) : 0;
  }

  function showPlot() {
    const plot = id("plot");
    plot.hidden = history.length < 2;
    if (plot.hidden) return;
    const top = Math.max(...history, 1), last = history.length - 1;
    const points = history.map((each, place) =>
      `${((100 * place) / last).toFixed(1)},${(30 - (28 * each) / top).toFixed(1)}`).join(" ");
    id("line").setAttribute("points", points);
    id("area").setAttribute("points", `0,30 ${points} 100,30`);
    say(id("top"), `at most ${inWords.speed(top)}`);
  }

  function showTab() {
    const first = now.state !== "streaming" ? TITLES[now.state]
      : now.percent === null ? "On its way" : `${Math.floor(now.percent)}%`;
    const title = `${first} · ${board.dataset.path}`;
    if (document.title !== title) document.title = title;
    const colour = { complete: "#1f7a4d", failed: "#b3261e", streaming: "#0b57d0" }[now.state] ?? "#6b7280";
    const done = now.state === "complete" ? 100 : Math.round(now.percent ?? part());
    const ring = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><circle cx="16" cy="16" r="12" fill="none" stroke="#9aa3af55" stroke-width="7"/><circle cx="16" cy="16" r="12" fill="none" stroke="${colour}" stroke-width="7" pathLength="100" stroke-dasharray="${done} 100" transform="rotate(-90 16 16)"/></svg>`;
    const href = `data:image/svg+xml,${encodeURIComponent(ring)}`;
    if (id("icon").href !== href) id("icon").href = href;
  }

  function show() {
    board.dataset.state = now.state;
    say(id("headline"), now.state !== "streaming" ? HEADLINES[now.state]
      : now.percent === null ? inWords.size(now.bytes) : `${now.percent.toFixed(1)}%`);
    say(id("sentence"), sentence());
    showFigures();
    showBar();
    showPlot();
    showTab();
  }

  function note() {
    const seconds = (Date.now() - noted) / 1000;
    if (seconds < step) return;
    noted = Date.now();
    history.push(now.speed);
    if (history.length > 120) {
      for (let place = 0; place < history.length / 2; place += 1) {
        history[place] = (history[2 * place] + (history[2 * place + 1] ?? history[2 * place])) / 2;
      }
      history.length = Math.ceil(history.length / 2);
      step *= 2;
    }
  }

  // What happens

  // A browser says nothing of a server that hangs, or of a network that is gone: silence,
  // longer than the server ever keeps it, is the sign. A page that was asleep in a pocket
  // sees by it at once, too, that what it shows is old.

  const patience = Number(board.dataset.beat) * 1000 * 5 / 3;
  const link = id("link").parentElement;
  let source = null, again = null, life = 0;

  function lose() {
    link.className = "link lost";
    say(id("link"), `As of ${asOf.toLocaleTimeString()}; trying to reach the server`);
  }

  function watch() {
    if (Date.now() - life > patience) {
      lose();
      follow();
    }
  }

  function follow() {
    source?.close();
    clearTimeout(again);
    life = Date.now();
    source = new EventSource(board.dataset.stream);
    source.addEventListener("ping", () => {
      life = Date.now();
      asOf = new Date();
    });
    const hear = (name, then) => source.addEventListener(name, (event) => {
      life = Date.now();
      then(JSON.parse(event.data));
      asOf = new Date();
      // The end has a state first, and then what it was.
      if (now.finishedAt || !["complete", "failed"].includes(now.state)) show();
    });
    hear("state", (state) => {
      if (state.state === "streaming" && now.state !== "streaming") begin();
      Object.assign(now, state);
    });
    hear("progress", (progress) => {
      // Of another transfer than the last that we heard of, whose end we missed.
      if (progress.elapsedSec < now.elapsedSec - 1) begin();
      Object.assign(now, progress);
      heard = progress.ts;
      note();
    });
    hear("done", (done) => {
      const same = done.startedAt === now.startedAt || heard >= done.startedAt;
      if (!same) now.totalBytes = null;
      Object.assign(now, { percent: null }, done);
      if (done.state === "complete") now.totalBytes = done.bytes;
    });
    source.onopen = () => {
      life = Date.now();
      link.className = "link live";
      say(id("link"), "Live");
    };
    source.onerror = () => {
      lose();
      // A browser gives up on any answer but 200; we do not.
      if (source.readyState === EventSource.CLOSED) again = setTimeout(follow, 3000);
    };
  }

  function begin() {
    Object.assign(now, {
      bytes: 0, totalBytes: null, percent: null, speed: 0, mbps: 0, etaSec: null, elapsedSec: 0,
      digest: null, error: null, finishedAt: null,
    });
    history.length = 0;
    step = 1;
    noted = Date.now();
  }

  show();
  follow();
  setInterval(watch, Math.min(1000, patience / 4));
  document.addEventListener("visibilitychange", watch);
  window.addEventListener("offline", lose);
  window.addEventListener("online", follow);
  copyButtons((text) => say(id("said"), text));
})();
