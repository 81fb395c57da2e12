// The line to the server: what changes there shows here, a lost line says so, an ended session locks the page.

import { composerOf } from "./composer.js";
import { openId, refreshConversation, refreshList } from "./page.js";

const $ = (selector) => document.querySelector(selector);

let source;
let seq = document.body.dataset.seq;
let lostTimer;
let reopenTimer;
let hadBeenOpen = false;

export const isLocked = () => $("#lock").open;

export function setOffline(isLost) {
  const bar = $("#offline");
  clearTimeout(lostTimer);
  if (!isLost) {
    bar.hidden = true;
    return;
  }
  if (!bar.hidden) return;
  const since = new Date();
  // A restart of the server takes a moment and needs no alarm.
  lostTimer = setTimeout(() => {
    bar.querySelector("[data-since]").textContent = since.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
    bar.hidden = false;
  }, 2500);
}

function setLive(isOn) {
  document.body.dataset.live = isOn ? "on" : "off";
}

function connect() {
  clearTimeout(reopenTimer);
  source?.close();
  source = new EventSource(`/events?after=${encodeURIComponent(seq)}`);
  source.onopen = () => {
    setOffline(false);
    setLive(true);
    // What changed meanwhile is told again; lamps and ages are not.
    if (hadBeenOpen) refreshList();
    hadBeenOpen = true;
  };
  source.addEventListener("change", (event) => {
    const change = JSON.parse(event.data);
    seq = change.seq;
    refreshList();
    if (change.all || change.conversation === openId()) refreshConversation();
  });
  source.addEventListener("health", refreshList);
  source.addEventListener("expired", lock);
  source.onerror = () => {
    setLive(false);
    setOffline(true);
    // An answer other than 200 ends the stream for good; a refresh finds out whether the session is over.
    if (source.readyState === EventSource.CLOSED && !isLocked()) {
      reopenTimer = setTimeout(async () => {
        await refreshList();
        if (!isLocked()) connect();
      }, 2000);
    }
  };
}

function refreshAll() {
  refreshList();
  refreshConversation();
}

// The lock.

/** Covers the page, intact, until the same person has logged in again. */
export function lock() {
  if (isLocked()) return;
  source?.close();
  clearTimeout(reopenTimer);
  setLive(false);
  setOffline(false);
  document.querySelectorAll("audio").forEach((audio) => audio.pause());
  $("#lock").showModal();
  $("#lock [name=login]").focus();
}

async function unlock(form) {
  const problem = form.querySelector(".problem");
  problem.hidden = true;
  let response;
  try {
    response = await fetch("/login", {
      method: "POST",
      headers: { "X-Part": "session" },
      body: new URLSearchParams(new FormData(form)),
    });
  } catch {
    setOffline(true);
    problem.textContent = document.querySelector("#word-offline").content.textContent;
    problem.hidden = false;
    return;
  }
  const answer = await response.json().catch(() => ({}));
  form.password.value = "";
  if (!response.ok) {
    problem.textContent = answer.problem ?? document.querySelector("#word-failed").content.textContent;
    problem.hidden = false;
    form.password.focus();
    return;
  }
  // Somebody else must not find the first one's page.
  if (answer.me !== document.body.dataset.me) return location.assign("/");
  $("#lock").close();
  connect();
  refreshAll();
  composerOf(document)?.flush();
}

// Whoever types, points or listens keeps the session; live updates do not.

const TOUCH_EVERY_MS = 60_000;
let touchedAt = performance.now();

async function touch() {
  if (isLocked() || performance.now() - touchedAt < TOUCH_EVERY_MS) return;
  touchedAt = performance.now();
  try {
    const response = await fetch("/session/touch", { method: "POST", headers: { "X-Part": "session" } });
    if (response.status === 401) lock();
  } catch {
    setOffline(true);
  }
}

export function startLive() {
  for (const activity of ["keydown", "pointerdown", "pointermove", "wheel", "timeupdate"]) {
    document.addEventListener(activity, touch, { capture: true, passive: true });
  }
  $("#lock").addEventListener("cancel", (event) => event.preventDefault());
  $("#lock form").addEventListener("submit", (event) => {
    event.preventDefault();
    unlock(event.target);
  });
  // A page from the browser's memory is stale, and so is its stream.
  addEventListener("pageshow", (event) => {
    if (!event.persisted) return;
    connect();
    refreshAll();
  });
  addEventListener("pagehide", () => source?.close());
  connect();
}
