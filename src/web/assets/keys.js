// The keyboard: single letters, off while typing, and off altogether when somebody switches them off.

import { composerOf } from "./composer.js";
import { isLocked } from "./live.js";

const $ = (selector) => document.querySelector(selector);
const press = (selector) => $(selector)?.click();
const VIEWS = { n: "needs-action", m: "mine", u: "unassigned", f: "failed-sends", r: "resolved" };
const SECOND_KEY_MS = 1500;

const isTyping = (target) => target.closest?.("textarea, select, input:not([type=checkbox], [type=radio], [type=file]), [contenteditable]");
const areOn = () => localStorage.getItem("keys") !== "off";

function move(step) {
  const items = [...document.querySelectorAll("#items a.item")];
  if (items.length === 0) return;
  const from = items.indexOf(document.activeElement.closest?.("a.item") ?? $("#items a.item.selected"));
  const next = items[from < 0 ? (step > 0 ? 0 : items.length - 1) : Math.min(Math.max(from + step, 0), items.length - 1)];
  next.focus({ preventScroll: true });
  next.scrollIntoView({ block: "nearest" });
}

function openAssign() {
  const menu = $("[data-pop=assign]");
  if (!menu) return;
  menu.open = !menu.open;
  (menu.open ? menu.querySelector("button:not(:disabled)") : menu.querySelector("summary"))?.focus();
}

function playOrPause() {
  const players = [...document.querySelectorAll("#timeline voice-player")];
  (players.find((player) => !player.audio?.paused) ?? players.at(-1))?.toggle();
}

/** What the toast offers, else the newest send that has not left. */
function undo() {
  const offered = document.querySelectorAll("#toast:not([hidden]) form:not([hidden]) [data-do=undo]");
  const queued = document.querySelectorAll("#timeline form.undo:not([hidden]) [data-do=undo]");
  [...queued, ...offered].at(-1)?.click();
}

const KEYS = {
  j: () => move(1),
  k: () => move(-1),
  r: () => composerOf(document)?.choose("reply"),
  n: () => composerOf(document)?.choose("note"),
  a: openAssign,
  i: () => press("[data-do=assign-me]"),
  e: () => press("#head [data-do=resolve]"),
  p: playOrPause,
  z: undo,
  "/": () => $(".search input").select(),
  "?": () => $("#help").togglePopover(),
};

function escape(event) {
  const menu = $("details[data-pop][open]");
  if (menu) {
    menu.open = false;
    menu.querySelector("summary").focus();
  } else if (location.hash === "#panel") {
    location.hash = "#conversation";
  } else if (isTyping(event.target)) {
    event.target.blur();
  } else {
    return;
  }
  event.preventDefault();
}

function arrows(event) {
  const menu = event.target.closest?.(".menu");
  if (!menu) return;
  const buttons = [...menu.querySelectorAll("button:not(:disabled)")];
  const step = event.key === "ArrowDown" ? 1 : -1;
  buttons[(buttons.indexOf(event.target) + step + buttons.length) % buttons.length]?.focus();
  event.preventDefault();
}

export function watchKeys() {
  let waitsForView = 0;
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.isComposing || isLocked()) return;
    if (event.key === "Escape") return escape(event);
    if (event.key === "ArrowDown" || event.key === "ArrowUp") return arrows(event);
    if (!areOn() || isTyping(event.target) || event.ctrlKey || event.metaKey || event.altKey || event.repeat && !"jk".includes(event.key)) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : "";
    if (performance.now() < waitsForView && VIEWS[key]) {
      waitsForView = 0;
      event.preventDefault();
      return press(`[data-view="${VIEWS[key]}"]`);
    }
    waitsForView = key === "g" ? performance.now() + SECOND_KEY_MS : 0;
    if (!KEYS[key] || ($("#help").matches(":popover-open") && key !== "?")) return;
    event.preventDefault();
    KEYS[key]();
  });
  const on = $("#keys-on");
  on.checked = areOn();
  on.addEventListener("change", () => localStorage.setItem("keys", on.checked ? "on" : "off"));
}
