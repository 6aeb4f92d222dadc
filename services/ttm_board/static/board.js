// Keeps the panel as the server sees it: asks for it again when an event says that something changed.
"use strict";
(() => {
  const panel = document.getElementById("panel");
  const line = document.getElementById("line");
  const AGAIN_MS = 30000; // durations grow by themselves
  let asking = false, stale = false;

  // an address may hold a name and a password, with which fetch refuses to work
  const address = (name) => {
    const url = new URL(name + (name === "panel" ? location.search : ""), location.href);
    url.username = url.password = "";
    return url;
  };
  const say = (text, mark) => { line.textContent = text; line.className = "mark " + mark; };
  const shown = () => document.getElementById("shot")?.dataset.version;

  async function refresh() {
    if (asking) { stale = true; return; }
    asking = true;
    try {
      const answer = await fetch(address("panel"), { cache: "no-store", credentials: "same-origin" });
      if (!answer.ok) throw new Error(answer.status);
      const open = [...panel.querySelectorAll("details[open]")].map((d) => d.closest("tr").cells[0].textContent);
      panel.innerHTML = await answer.text();
      for (const details of panel.querySelectorAll("details")) {
        details.open = open.includes(details.closest("tr").cells[0].textContent);
      }
    } catch {
      say("нет связи с доской", "bad");
    } finally {
      asking = false;
      if (stale) { stale = false; refresh(); }
    }
  }

  function listen() {
    const events = new EventSource(address("events"));
    events.onopen = () => say("обновляется сама", "good");
    events.onmessage = (event) => { if (event.data !== shown()) refresh(); };
    events.onerror = () => {
      say("нет связи с доской", "bad");
      if (events.readyState === EventSource.CLOSED) setTimeout(listen, 10000);
    };
  }

  listen();
  setInterval(refresh, AGAIN_MS);
  document.getElementById("filters").addEventListener("change", (event) => event.currentTarget.requestSubmit());
})();
