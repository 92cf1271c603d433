"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const { base, reserved, longest, most, bearer } = $("page").dataset;
  const home = document.title;

  // Names, URLs and command lines

  const LETTERS = "23456789abcdefghjkmnpqrstuvwxyz";

  function randomName() {
    const letters = [];
    while (letters.length < 20) {
      const [byte] = crypto.getRandomValues(new Uint8Array(1));
      if (byte < 8 * LETTERS.length) letters.push(LETTERS[byte % LETTERS.length]);
    }
    return letters.join("").match(/.{5}/g).join("-");
  }

  function wrongPath(path) {
    const folded = path.replace(/[/.]+$/, "").toLowerCase();
    if (folded === "") return "The path is empty, or dots and slashes only; give it a name.";
    if (reserved.split(" ").includes(folded)) return `The path ${folded} is reserved; choose another one.`;
    if ([...path].length > Number(longest)) return `The path is too long; it may have ${longest} characters.`;
    if (/[\\\p{Cc}\p{Cs}]/u.test(path)) return "The path holds a backslash or a control character; leave them out.";
    return null;
  }

  function wrongNumber(text) {
    if (/^\d{1,3}$/.test(text) && text >= 1 && text <= Number(most)) return null;
    return `Receivers: give a whole number from 1 to ${most}.`;
  }

  const escaped = (text) =>
    encodeURIComponent(text).replace(/[!'()*]/g, (c) => "%" + c.charCodeAt(0).toString(16).toUpperCase());

  // Clients resolve parts that are dots; to the server, an encoded slash is a slash.
  function encodedPath(path) {
    const parts = path.split("/");
    const misread = path.startsWith("/") || parts.some((part) => part === "." || part === "..");
    return parts.map(escaped).join(misread ? "%2F" : "/");
  }

  const quoted = (text) =>
    /^[\w@%+=:,./-]+$/.test(text) ? text : "'" + text.replaceAll("'", "'\"'\"'") + "'";

  function address(...more) {
    const n = Number($("n").value);
    const query = [...(n > 1 ? [`n=${n}`] : []), ...more].join("&");
    return `${location.origin}${base}/${encodedPath($("path").value)}${query && "?" + query}`;
  }

  const way = () => document.querySelector("input[name=way]:checked").value;

  // What is to be sent

  let file = null;

  function choose(files) {
    if (files.length > 1) return complain("One file at a time; put several into an archive first.");
    file = files[0] ?? null;
    complain(null);
    show();
  }

  function body() {
    if (file) return { content: file, name: file.name, type: file.type || "application/octet-stream" };
    const type = "text/plain; charset=utf-8";
    return { content: new Blob([$("text").value], { type }), name: "", type };
  }

  // The form

  function complain(sentence, field = null) {
    $("problem").textContent = sentence ?? "";
    for (const each of ["path", "n"]) $(each).setAttribute("aria-invalid", String(each === field));
    if (field) $(field).focus();
  }

  function problem() {
    const path = wrongPath($("path").value);
    if (path) return [path, "path"];
    const number = wrongNumber($("n").value);
    return number ? [number, "n"] : null;
  }

  let given = "";

  function show() {
    const receiving = way() === "receive";
    $("what").hidden = receiving;
    $("drop").hidden = $("typing").hidden = file !== null;
    $("chosen").hidden = file === null;
    $("chosen-name").textContent = file?.name ?? "";
    $("chosen-size").textContent = file ? inWords.size(file.size) : "";
    $("guess").hidden = $("path").value !== given || receiving;
    $("go").textContent = receiving ? "Receive as a download" : "Send";
    $("go").hidden = receiving && bearer === "yes";
    if (bearer === "yes") {
      $("bearer").hidden = receiving;
      $("no-bearer").hidden = !receiving;
    }
    $("there-title").textContent = receiving ? "Or elsewhere" : "On the other side";
    $("watching").hidden = receiving;
    showAddresses();
  }

  function showAddresses() {
    $("there").hidden = problem() !== null;
    if ($("there").hidden) return;
    const header = bearer === "yes" ? '-H "Authorization: Bearer $TOKEN" ' : "";
    const name = way() === "receive" ? "file" : file?.name ?? ($("text").value ? "text.txt" : "file");
    $("line").textContent = `curl ${header}${quoted(address())} > ${quoted(name)}`;
    $("url").textContent = address();
    $("watch").href = address("progress");
  }

  function receive() {
    const link = document.createElement("a");
    link.href = address("download");
    link.download = "";
    link.click();
    $("receiving").textContent = "Your browser asks for it now. It shows up among the downloads when the sender is there.";
  }

  // A transfer

  let running = null;

  const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

  class Transfer {
    constructor() {
      this.body = body();
      this.total = this.body.content.size;
      this.wanted = Number($("n").value);
      this.there = 0;
      this.bytes = 0;
      this.speed = null;
      this.left = null;
      this.read = 0;
      this.fed = false;
      this.began = null;
      this.phase = null;
      this.watching = new AbortController();
      this.unwatched = null;
      this.enter("waiting");
    }

    async start() {
      if (this.ended) return;
      const token = $("token")?.value;
      const headers = token ? { Authorization: `Bearer ${token}` } : {};
      // Who watches only when it has begun may miss how it ended.
      await Promise.race([this.watch(headers), pause(2000)]);
      if (this.ended) return;
      const request = (this.request = new XMLHttpRequest());
      request.open("PUT", address());
      request.setRequestHeader("Content-Type", this.body.type);
      if (this.body.name) {
        request.setRequestHeader("Content-Disposition", `attachment; filename*=UTF-8''${escaped(this.body.name)}`);
      }
      for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value);
      request.upload.onprogress = (event) => this.handedOver(event.loaded);
      request.onreadystatechange = () => this.readLines();
      request.onload = () => this.answered();
      request.onerror = () => this.broke();
      request.send(this.body.content);
    }

    // What the server says by the other way may be underway.
    async broke() {
      await Promise.race([this.unwatched, pause(5000)]);
      this.fail("The connection to the server broke.");
    }

    // A browser reads no answer before it has sent all, and sends what is not read yet: how a
    // large body fares, and why it failed, is learned by watching the path, as others may.
    async watch(headers) {
      let answer = null;
      try {
        answer = await fetch(address("progress"), {
          headers: { ...headers, Accept: "text/event-stream" },
          signal: this.watching.signal,
        });
      } catch {
        // There is still the request itself.
      }
      this.unwatched = this.follow(answer);
    }

    async follow(answer) {
      try {
        if (answer?.ok) for await (const [name, data] of events(answer.body)) this.seen(name, data);
      } catch {
        // As above.
      }
      this.fed = false;
    }

    seen(name, data) {
      if (name === "state" && data.hasSender && /waiting|streaming/.test(data.state)) {
        this.fed = true;
        this.there = data.activeReceivers;
        this.enter(data.state);
      } else if (name === "progress" && this.fed) {
        this.moved(data.bytes, data.speed, data.eta);
      } else if (name === "done" && this.fed && data.state === "failed") {
        this.fail(data.error);
      }
    }

    handedOver(bytes) {
      if (this.fed) return;
      if (bytes < this.total) this.enter("streaming");
      this.moved(bytes, null, null);
    }

    moved(bytes, speed, left) {
      [this.bytes, this.speed, this.left] = [bytes, speed, left];
      this.showNumbers();
    }

    readLines() {
      const text = this.request.responseText;
      const end = text.lastIndexOf("\n") + 1;
      const lines = text.slice(this.read, end).split("\n").filter(Boolean);
      this.read = end;
      lines.forEach((line) => this.line(line));
    }

    line(line) {
      const [, kind, words] = /^\[(\w+)\] (.*)$/.exec(line) ?? [null, "ERROR", line];
      const [count] = /\d+/.exec(words) ?? ["0"];
      if (kind === "ERROR") this.fail(words);
      else if (words.startsWith("Waiting for") || words.startsWith("Still waiting")) return;
      else if (words.startsWith("A receiver was connected")) this.arrived(this.there + 1);
      else if (words.includes("already connected")) this.arrived(Number(count));
      else if (words.startsWith("Streaming to")) this.enter("streaming");
      else if (words.startsWith("Upload complete")) this.enter("confirming");
      else if (!words.startsWith("Transfer complete")) this.note(words, Number(count));
    }

    note(words, count) {
      if (words.startsWith("A receiver left")) return this.arrived(count);
      $("notes").append(Object.assign(document.createElement("li"), { textContent: words }));
    }

    arrived(count) {
      if (this.fed) return;
      this.there = count;
      this.showState();
    }

    answered() {
      this.readLines();
      if (/^\[INFO\] Transfer complete\.\n$/m.test(this.request.responseText)) this.end("done");
      else this.fail(`The server answered ${this.request.status} and did not say how it ended.`);
    }

    enter(phase) {
      const order = ["waiting", "streaming", "confirming", "done", "failed", "stopped"];
      if (this.ended || order.indexOf(phase) < order.indexOf(this.phase)) return;
      if (phase !== "waiting") this.began ??= performance.now();
      this.phase = phase;
      this.showState();
      this.showNumbers();
    }

    get ended() {
      return ["done", "failed", "stopped"].includes(this.phase);
    }

    fail(why) {
      if (this.ended) return;
      $("why").textContent = why;
      this.end("failed");
    }

    stop() {
      this.end("stopped");
    }

    end(phase) {
      if (this.ended) return;
      this.seconds = this.began === null ? 0 : (performance.now() - this.began) / 1000;
      this.enter(phase);
      this.request?.abort();
      this.watching.abort();
      const focus = document.activeElement === $("stop");
      $("stop").hidden = true;
      $("again").hidden = $("other").hidden = false;
      $("again").classList.toggle("main", phase !== "done");
      $("other").classList.toggle("main", phase === "done");
      if (focus) $("again").focus();
    }

    phrase() {
      const many = this.wanted > 1;
      switch (this.phase) {
        case "waiting":
          if (!many) return "Waiting for the receiver";
          return this.there ? `${this.there} of ${this.wanted} receivers are here` : `Waiting for ${this.wanted} receivers`;
        case "streaming":
          if (!this.fed && !this.read) return "On its way, as fast as the other side takes it";
          return many ? `Sending to ${this.wanted} receivers` : "Sending";
        case "confirming":
          return "All is sent; it has yet to arrive";
        case "done":
          return many ? "Done: all of them have all of it" : "Done: all of it has arrived";
        case "failed":
          return "It failed";
        default:
          return "Stopped";
      }
    }

    showState() {
      const words = this.phrase();
      if ($("state").textContent !== words) $("state").textContent = words;
      document.title = `${words} · ${home}`;
      $("run").dataset.phase = this.phase;
      $("why").hidden = this.phase !== "failed";
      $("thing").textContent = this.body.name ? `${this.body.name}, ${inWords.size(this.total)}` : `Text, ${inWords.size(this.total)}`;
    }

    showNumbers() {
      if (this.phase === "waiting") return this.numbers(null, "", "", "", "");
      if (this.phase === "done") {
        const measurable = this.seconds >= 0.1;
        const speed = measurable ? inWords.speed(this.total / this.seconds) : "";
        return this.numbers(1, "100%", inWords.size(this.total), speed, measurable ? `in ${inWords.took(this.seconds)}` : "in no time");
      }
      const part = this.phase === "confirming" ? 1 : this.total ? Math.min(1, this.bytes / this.total) : 0;
      const over = this.ended;
      this.numbers(
        part,
        `${Math.floor(100 * part)}%`,
        `${inWords.size(Math.round(part * this.total))} of ${inWords.size(this.total)}`,
        !over && this.speed !== null ? inWords.speed(this.speed) : "",
        !over && this.left !== null ? `${inWords.about(this.left)} left` : "",
      );
    }

    numbers(part, ...texts) {
      if (part === null) $("bar").removeAttribute("value");
      else $("bar").value = part;
      $("bar").hidden = part === null && this.ended;
      ["percent", "bytes", "speed", "left"].forEach((id, i) => ($(id).textContent = texts[i]));
    }
  }

  async function* events(stream) {
    const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const blocks = (rest + value).split(/\r?\n\r?\n/);
      rest = blocks.pop();
      for (const block of blocks) {
        const field = (name) => new RegExp(`^${name}: ?(.*)$`, "m").exec(block)?.[1];
        if (field("data")) yield [field("event"), JSON.parse(field("data"))];
      }
    }
  }

  function send() {
    if (!file && !$("text").value) return complain("Choose a file, or type some text.");
    begin();
  }

  // The server has yet to notice that the last one is over, which takes a round trip or two.
  const PAUSE = 500;

  function begin(after = 0) {
    for (const id of ["form", "ways", "again", "other"]) $(id).hidden = true;
    $("run").hidden = $("stop").hidden = false;
    $("notes").replaceChildren();
    const transfer = (running = new Transfer());
    setTimeout(() => transfer.start(), after);
    $("stop").focus();
  }

  function back() {
    for (const id of ["form", "ways"]) $(id).hidden = false;
    $("run").hidden = true;
    running = null;
    document.title = home;
    file = null;
    $("file").value = $("text").value = "";
    $("path").value = given = randomName();
    $("n").value = 1;
    show();
    $("file").focus();
  }

  // Who calls what

  $("form").addEventListener("submit", (event) => {
    event.preventDefault();
    const wrong = problem();
    complain(...(wrong ?? [null]));
    if (wrong) return;
    if (way() === "send") send();
    else if (bearer === "no") receive();
  });
  $("ways").addEventListener("change", () => {
    if (way() === "receive" && $("path").value === given) $("path").value = "";
    else if (way() === "send" && !$("path").value) $("path").value = given;
    complain(null);
    $("receiving").textContent = "";
    show();
  });
  $("form").addEventListener("input", (event) => {
    if (event.target !== $("file")) complain(null);
    show();
  });
  $("file").addEventListener("change", () => choose($("file").files));
  $("remove").addEventListener("click", () => {
    $("file").value = "";
    choose([]);
    $("file").focus();
  });
  $("stop").addEventListener("click", () => running.stop());
  $("again").addEventListener("click", () => begin(PAUSE));
  $("other").addEventListener("click", back);
  copyButtons((text) => ($("said").textContent = text));
  for (const kind of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(kind, (event) => {
      event.preventDefault();
      const open = !running && way() === "send";
      $("drop").classList.toggle("over", open && kind === "dragover");
      if (open && kind === "drop" && event.dataTransfer.files.length) choose(event.dataTransfer.files);
    });
  }
  addEventListener("beforeunload", (event) => {
    if (running && !running.ended) event.preventDefault();
  });

  $("path").value = given = randomName();
  $("page").hidden = false;
  show();
})();
