// What the console does on top of its pages, each of which works without this file.
"use strict";

const all = (selector) => document.querySelectorAll(selector);

// A credential is shown once: loading the page again must not send its form again, and a browser that keeps
// pages in memory must not show it when somebody goes back.
for (const deed of all("[data-once]")) {
  history.replaceState(null, "", deed.dataset.once);
  addEventListener("pagehide", () => deed.remove());
  addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
}

// Copying.
for (const button of all("[data-copy]")) {
  if (!navigator.clipboard) continue;
  const shown = button.firstChild, label = shown.data;  // what it copies follows, for screen readers
  button.hidden = false;
  button.setAttribute("aria-live", "polite");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
      shown.data = "Copied";
    } catch {
      shown.data = "Select";
    }
    setTimeout(() => { shown.data = label; }, 1500);
  });
}

// Countdowns. Text is written only when it changes.
function left(until) {
  const seconds = Math.max(0, Math.floor((Date.parse(until) - Date.now()) / 1000));
  const hours = Math.floor(seconds / 3600), minutes = Math.floor(seconds / 60) % 60;
  if (!seconds) return "ended";
  if (hours >= 48) return `${Math.floor(hours / 24)}d${hours % 24}h`;
  if (hours) return `${hours}h${minutes}m`;
  return minutes ? `${minutes}m${seconds % 60}s` : `${seconds}s`;
}
const countdowns = all("[data-until]");
function tick() {
  for (const one of countdowns) {
    const text = left(one.dataset.until);
    if (one.textContent !== text) one.textContent = text;
  }
}
if (countdowns.length) setInterval(tick, 1000);

// A problem's line selects that line of its document.
function selectLine(area, line) {
  const lines = area.value.split("\n");
  const start = lines.slice(0, line - 1).reduce((sum, text) => sum + text.length + 1, 0);
  area.focus();
  area.setSelectionRange(start, start + (lines[line - 1] || "").length);
  area.scrollTop = area.scrollHeight * Math.max(0, line - 4) / lines.length;
}
function lineButton(area, line) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "line";
  button.textContent = `Line ${line}`;
  button.addEventListener("click", () => selectLine(area, line));
  return button;
}
for (const button of all("[data-line]")) {
  button.disabled = false;
  const area = document.getElementById(button.dataset.of);
  button.addEventListener("click", () => selectLine(area, Number(button.dataset.line)));
}

// Policies are checked as they are typed, by the rules of the server.
for (const place of all("[data-check]")) {
  const area = document.getElementById(place.dataset.check);
  let timer = 0, running = null;
  function show(problems) {
    const shown = problems.map((problem) => {
      const line = document.createElement("p");
      line.className = "problem";
      if (problem.line) line.append(lineButton(area, problem.line), " ");
      line.append(problem.text);
      return line;
    });
    if (!shown.length && area.value.trim()) {
      const fine = document.createElement("p");
      fine.className = "fine";
      fine.textContent = "A valid policy.";
      shown.push(fine);
    }
    place.replaceChildren(...shown);
  }
  async function check() {
    if (running) running.abort();
    running = new AbortController();
    const body = new URLSearchParams({ csrf: area.form.elements.csrf.value, policy_document: area.value });
    try {
      const answer = await fetch("/policy/check", { method: "POST", body, signal: running.signal, redirect: "error" });
      if (answer.ok) show((await answer.json()).problems);
    } catch {
      place.replaceChildren();  // the next pause of typing checks again
    }
  }
  area.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(check, 350);
  });
}

// Events as they occur.
const MAX_EVENTS = 200;
for (const state of all("[data-events]")) {
  const list = document.getElementById("events"), text = state.querySelector("[role=status]");
  function set(kind, words) {
    state.className = `live ${kind}`;
    text.textContent = words;
  }
  function show(event) {
    const { type, lease, time, error } = JSON.parse(event.data);
    const item = document.createElement("li");
    item.className = type;
    const when = document.createElement("time");
    when.textContent = `${time} UTC`;
    const what = document.createElement("span");
    what.className = "what";
    what.textContent = type.toLowerCase();
    const link = document.createElement("a");
    link.className = "id";
    link.href = `/leases/${lease.split("/").map(encodeURIComponent).join("/")}`;
    const end = lease.lastIndexOf("/") + 1;
    link.append(lease.slice(0, end), document.createElement("wbr"), lease.slice(end));
    item.append(when, what, link);
    if (error) {
      const why = document.createElement("span");
      why.className = "why";
      why.textContent = error;
      item.append(why);
    }
    list.prepend(item);
    while (list.children.length > MAX_EVENTS) list.lastChild.remove();
  }
  // A browser opens six connections to a host: a page that nobody sees must not keep one of them.
  let source = null;
  function watch() {
    if (source) source.close();
    source = null;
    if (document.hidden) return set("off", "Paused while the page is hidden.");
    const opened = source = new EventSource(state.dataset.events);
    set("off", "Connecting…");
    opened.addEventListener("open", () => set("on", "Events appear as they occur."));
    opened.addEventListener("error", () => {
      if (opened.readyState === EventSource.CLOSED) set("off", "No events: load this page again.");
      else set("off", "Disconnected; trying again.");
    });
    opened.addEventListener("end", (event) => set("off", JSON.parse(event.data).text));
    opened.addEventListener("lease", show);
  }
  watch();
  document.addEventListener("visibilitychange", watch);
  addEventListener("pagehide", () => source && source.close());
}
