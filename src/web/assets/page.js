// The page as parts: fetched with `X-Part`, merged by key and revision, so that what one is doing stays untouched:
// a playing voicemail, an open menu, the place in the list, the words being written.

import { composerOf } from "./composer.js";
import { lock, setOffline } from "./live.js";

const $ = (selector, from = document) => from.querySelector(selector);

/** The words of a `<template id="word-…">`: wording lives in the templates. */
export const word = (name) => $(`#word-${name}`).content.textContent.trim();

export class Refused extends Error {
  constructor(status) {
    super(`HTTP ${status}`);
    this.status = status;
  }
}

/**
 * Fetches a part of a page. `live` requests must not count as somebody's activity.
 * Resolves to `{status, part, url}` for 2xx, 409 and 422, which carry a part; else throws.
 */
export async function fetchPart(url, part, { live = false, ...options } = {}) {
  const headers = { "X-Part": part, ...(live && { "X-Live": "1" }) };
  let response, text;
  try {
    response = await fetch(url, { ...options, headers, credentials: "same-origin" });
    text = await response.text();
  } catch (error) {
    setOffline(true);
    throw error;
  }
  if (response.status === 401) lock();
  noteServerTime(response);
  if (!response.ok && response.status !== 409 && response.status !== 422) throw new Refused(response.status);
  const found = new DOMParser().parseFromString(text, "text/html");
  return { status: response.status, part: found, url: new URL(response.url) };
}

// Where we are: the list's path and the open conversation.

export const base = () => $("#list").dataset.base;
export const openId = () => $("#conversation").dataset.id ?? null;

/** `/inbox/mine/<id>` → `["/inbox/mine", "<id>"]`. */
function split(path) {
  const [, area, name, id] = path.split("/");
  return [`/${area}/${name}`, id ?? null];
}

let shownPath = location.pathname;

function show(path, push) {
  if (push && path !== shownPath) history.pushState(null, "", path);
  shownPath = path;
  setTitle();
}

/** The count is for those who work in another tab; names stay out of titles and histories. */
function setTitle() {
  const count = $("#rail [aria-current] .count")?.textContent ?? "0";
  document.title = `${count === "0" ? "" : `(${count}) `}${$("#list h1").textContent} · Frontdesk`;
}

// Announcements and the toast.

export function announce(text) {
  const region = $("#announce");
  region.textContent = "";
  requestAnimationFrame(() => (region.textContent = text));
}

let toastTimer;

function showToast(toast, seconds = 8) {
  clearTimeout(toastTimer);
  toast.id = "toast";
  $("#toast").replaceWith(toast);
  if (toast.hidden) return;
  const left = Number($("form[data-left]", toast)?.dataset.left ?? seconds);
  toastTimer = setTimeout(() => (toast.hidden = true), left * 1000);
}

export function say(text) {
  const toast = $("#toast").cloneNode(false);
  toast.hidden = false;
  toast.append(Object.assign(document.createElement("span"), { className: "alone", textContent: text }));
  showToast(toast);
}

export function sayWhatWentWrong(error) {
  if (!(error instanceof Refused)) return say(word("offline"));
  if (error.status === 401) return;
  say(word({ 403: "forbidden", 404: "missing", 410: "missing" }[error.status] ?? "failed"));
}

/** After the undo time the button would only lead to a refusal. */
function watchUndo(root) {
  for (const form of root.querySelectorAll("form.undo[data-left]")) {
    setTimeout(() => (form.hidden = true), Number(form.dataset.left) * 1000);
  }
}

// The list.

const selectedItem = () => $("#items a.item.selected");

function select(id) {
  for (const item of document.querySelectorAll("#items a.item")) {
    if (item.classList.contains("gone") && item.dataset.id !== id) item.closest("li").remove();
    const chosen = item.dataset.id === id;
    item.classList.toggle("selected", chosen);
    if (chosen) item.setAttribute("aria-current", "true");
    else item.removeAttribute("aria-current");
  }
}

function mergeRail(part) {
  for (const selector of [".views", ".lamps", ".place"]) {
    const [now, next] = [$(`#rail ${selector}`), $(`#rail ${selector}`, part)];
    if (now.innerHTML === next.innerHTML) continue;
    // The focus stays on the view that has it.
    const view = now.contains(document.activeElement) ? document.activeElement.dataset.view : null;
    now.replaceWith(next);
    if (view) $(`[data-view="${view}"]`, next)?.focus();
  }
  setTitle();
}

/** Takes over a newer list without moving what one looks at. */
function mergeList(part) {
  const list = $("#list", part);
  const scroll = $("#list-scroll");
  const items = $("#items");
  const known = new Map([...items.children].map((li) => [li.dataset.key, li]));
  const incoming = [...$("#items", list).children];
  const stays = new Set(incoming.map((li) => li.dataset.key));
  const anchor = selectedItem()?.closest("li") ?? firstVisible(scroll, items, stays);
  const anchorTop = anchor?.getBoundingClientRect().top;
  const untouched = scroll.scrollTop === 0 && !scroll.matches(":hover, :focus-within");
  const arrivals = [];

  for (const [key, li] of known) {
    if (stays.has(key)) continue;
    // What is open stays where it is, so that J and K go on from there.
    if (key === openId()) $("a", li).classList.add("gone");
    else li.remove();
  }
  let place = items.firstElementChild;
  for (const next of incoming) {
    while (place && !stays.has(place.dataset.key)) place = place.nextElementSibling;
    const key = next.dataset.key;
    const now = known.get(key);
    const link = $("a", next);
    const isNews = link.hasAttribute("data-theirs") && $("a", now ?? next).dataset.latest !== link.dataset.latest;
    if (!now || isNews) arrivals.push(key);
    const li = now ?? next;
    if (now) patchLink($("a", now), link);
    else if (link.hasAttribute("data-theirs")) link.classList.add("arrived");
    if (li === place) place = place.nextElementSibling;
    else items.insertBefore(li, place);
  }
  for (const selector of ["#banners", ".sort .order", "h1"]) {
    const [now, next] = [$(`#list ${selector}`), $(selector, list)];
    if (now && next && now.innerHTML !== next.innerHTML) now.innerHTML = next.innerHTML;
  }
  replaceOptional("#more", list, scroll);
  replaceOptional("#blank", list, scroll);
  select(openId());
  if (anchor?.isConnected && !untouched) scroll.scrollTop += anchor.getBoundingClientRect().top - anchorTop;
  // What comes in to the open conversation is announced there.
  const heard = arrivals.filter((key) => key !== openId() && $(`[data-key="${key}"] a`, items).hasAttribute("data-theirs"));
  if (heard.length) tellArrivals(heard, scroll, items);
}

function firstVisible(scroll, items, stays) {
  const top = scroll.getBoundingClientRect().top;
  return [...items.children].find((li) => stays.has(li.dataset.key) && li.getBoundingClientRect().bottom > top);
}

function patchLink(now, next) {
  if (now.innerHTML !== next.innerHTML) now.innerHTML = next.innerHTML;
  for (const name of ["class", "href", "data-latest", "data-theirs"]) {
    if (next.hasAttribute(name)) now.setAttribute(name, next.getAttribute(name));
    else now.removeAttribute(name);
  }
}

function replaceOptional(selector, from, into) {
  $(selector, into)?.remove();
  const next = $(selector, from);
  if (next) $("#items").after(next);
}

// How long people wait, by the server's clock.

let serverAheadMs = null;

function noteServerTime(response) {
  const date = Date.parse(response.headers.get("date"));
  if (date) serverAheadMs = date - Date.now();
}

function ageWaiting() {
  if (serverAheadMs === null) return;
  for (const time of document.querySelectorAll("#items .waiting time")) {
    const minutes = Math.max(1, Math.floor((Date.now() + serverAheadMs - Date.parse(time.dateTime)) / 60_000));
    const hours = Math.floor(minutes / 60);
    if (hours === 0) time.textContent = `${minutes} min`;
    else if (hours < 3 && minutes % 60) time.textContent = `${hours} h ${minutes % 60} min`;
    else time.textContent = hours < 48 ? `${hours} h` : `${Math.floor(hours / 24)} d`;
  }
}

const unseen = new Set();

function tellArrivals(keys, scroll, items) {
  const words = $("#word-arrivals").content;
  const count = (n) => (n === 1 ? $("[data-one]", words).textContent : `${n}${$("[data-many]", words).textContent}`);
  announce(count(keys.length));
  const top = scroll.getBoundingClientRect().top;
  for (const key of keys) {
    if ($(`[data-key="${key}"]`, items).getBoundingClientRect().top < top) unseen.add(key);
  }
  const fresh = $("#fresh");
  fresh.hidden = unseen.size === 0;
  fresh.textContent = count(unseen.size);
}

function watchListScroll() {
  document.addEventListener("scroll", (event) => {
    if (event.target.id !== "list-scroll" || event.target.scrollTop > 8) return;
    unseen.clear();
    $("#fresh").hidden = true;
  }, true);
}

async function loadMore(link) {
  const { part } = await fetchPart(link.href, "list");
  const known = new Set([...$("#items").children].map((li) => li.dataset.key));
  const added = [...$("#items", part).children].filter((li) => !known.has(li.dataset.key));
  $("#items").append(...added);
  replaceOptional("#more", part, $("#list-scroll"));
  select(openId());
  $("a", added[0] ?? $("#items").lastElementChild)?.focus();
}

// The conversation.

/** Replaces only the entries whose revision changed. Returns the entries that are new. */
function mergeTimeline(now, next) {
  const known = new Map([...now.children].map((li) => [li.dataset.key, li]));
  const added = [];
  let place = now.firstElementChild;
  for (const incoming of [...next.children]) {
    const old = known.get(incoming.dataset.key);
    known.delete(incoming.dataset.key);
    let li = old;
    if (!old || old.dataset.rev !== incoming.dataset.rev) {
      li = incoming;
      if (old) {
        const hadFocus = old.contains(document.activeElement);
        if (place === old) place = old.nextElementSibling;
        old.remove();
        if (hadFocus) requestAnimationFrame(() => $("#timeline-scroll")?.focus());
      } else {
        added.push(li);
      }
    }
    if (li === place) place = place.nextElementSibling;
    else now.insertBefore(li, place);
  }
  known.forEach((li) => li.remove());
  now.dataset.cursor = next.dataset.cursor;
  watchUndo(now);
  return added;
}

/**
 * Puts a fetched conversation on the page. `composer` says what becomes of what is being written:
 * "replace" after it was sent or undone, "problem" when the server refused it, "keep" otherwise.
 */
function applyConversation(part, composer = "keep") {
  const now = $("#conversation");
  const next = $("#conversation", part);
  const toast = $("#toast", part);
  if (toast && !toast.hidden) showToast(toast);
  if (now.dataset.id !== next.dataset.id || !next.dataset.id) {
    now.replaceWith(next);
    replacePanel(part);
    $(".app").dataset.pane = next.hasAttribute("data-nothing") ? "none" : "open";
    watchUndo(next);
    composerOf(next)?.begin();
    return;
  }
  const menuOpen = $("#head .pop[open]", now);
  if (!menuOpen) keepFocus($("#head", now), $("#head", next));
  now.className = next.className;
  const scroll = $("#timeline-scroll", now);
  const atEnd = Math.abs(scroll.scrollTop) < 40;
  const added = mergeTimeline($("#timeline", now), $("#timeline", next));
  const messages = added.filter((li) => li.matches(".message"));
  if (!atEnd && messages.length) $("#newer", now).hidden = false;
  for (const li of messages) announce($(".meta", li).innerText.replace(/\s+/g, " "));
  replacePanel(part);
  composerOf(now)?.merge($("#composer", next), composer, messages);
}

function keepFocus(now, next) {
  const name = now.contains(document.activeElement) ? document.activeElement.dataset.do : null;
  now.replaceWith(next);
  if (name) $(`[data-do="${name}"]`, next)?.focus();
}

function replacePanel(part) {
  // The element itself stays: on small screens it is open by being the address's target.
  const [now, next] = [$("#panel"), $("#panel", part)];
  if (now.innerHTML !== next.innerHTML) now.replaceChildren(...next.childNodes);
  now.hidden = next.hidden;
}

function closeConversation() {
  const empty = Object.assign(document.createElement("section"), { id: "conversation", className: "conversation empty", tabIndex: -1 });
  empty.append($("#no-conversation").content.cloneNode(true));
  $("#conversation").replaceWith(empty);
  $("#panel").hidden = true;
  $(".app").dataset.pane = "none";
  select(null);
}

// Navigation.

/** What is being written is saved before another conversation takes its place. */
async function mayLeave() {
  const composer = composerOf(document);
  if (!composer) return true;
  await composer.flush();
  if (composer.dirty) say(word("stay"));
  return !composer.dirty && (composer.files.length === 0 || confirm(word("files")));
}

let opening;

/** Opens a path of the inbox: its list if that changed, its conversation if it names one. */
async function go(url, { push = true, focus = false } = {}) {
  const [nextBase, id] = split(url.pathname);
  opening?.abort();
  const { signal } = (opening = new AbortController());
  if (!(await mayLeave())) return history.replaceState(null, "", shownPath);
  if (id) select(id);
  const wantList = nextBase !== base();
  const [list, conversation] = await Promise.all([
    wantList || !id ? fetchPart(nextBase, "list", { signal }) : null,
    id ? fetchPart(url, "conversation", { signal }) : null,
  ]);
  if (signal.aborted) return;
  if (list) {
    mergeRail(list.part);
    if (wantList) $("#list").replaceWith($("#list", list.part));
    else mergeList(list.part);
  }
  if (conversation) {
    applyConversation(conversation.part);
    if (url.searchParams.has("all")) $("#conversation").dataset.all = "1";
    if (focus || matchMedia("(max-width: 719px)").matches) $("#title")?.focus();
  } else {
    closeConversation();
  }
  select(id);
  show(url.pathname, push);
}

function reportUnlessAborted(error) {
  if (error.name !== "AbortError") sayWhatWentWrong(error);
  select(openId());
}

// Refreshing, on behalf of live.js.

const queue = { list: { running: false, again: false }, conversation: { running: false, again: false } };

async function coalesced(slot, work) {
  if (slot.running) {
    slot.again = true;
    return;
  }
  slot.running = true;
  try {
    do {
      slot.again = false;
      await work();
    } while (slot.again);
  } catch {
    // The line is lost or the session is over: both show themselves.
  } finally {
    slot.running = false;
  }
}

export const refreshList = () => coalesced(queue.list, async () => {
  const asked = base();
  const loaded = $("#items").children.length;
  const { part } = await fetchPart(loaded > 50 ? `${asked}?limit=${loaded}` : asked, "list", { live: true });
  if (asked !== base()) return;
  mergeRail(part);
  mergeList(part);
});

export const refreshConversation = () => coalesced(queue.conversation, async () => {
  const id = openId();
  if (!id) return;
  const all = $("#conversation").dataset.all ? "?all=1" : "";
  const { part } = await fetchPart(`${base()}/${id}${all}`, "conversation", { live: true });
  if (openId() === id) applyConversation(part);
});

// Forms.

async function submit(form, submitter) {
  const composer = form.id === "composer" ? composerOf(document) : null;
  const isUndo = submitter?.dataset.do === "undo" && form.classList.contains("undo");
  const body = new FormData(form, submitter);
  if (isUndo) await composerOf(document)?.flush();
  const action = submitter?.getAttribute("formaction") ?? form.getAttribute("action");
  form.classList.add("is-busy");
  composer?.hold();
  try {
    const answer = await fetchPart(action, "conversation", {
      method: "POST",
      body: form.enctype === "multipart/form-data" ? body : new URLSearchParams(body),
    });
    for (const menu of form.querySelectorAll("details[open]")) menu.open = false;
    form.closest("details")?.removeAttribute("open");
    const refused = answer.status === 409 || answer.status === 422;
    // An undo from the toast may belong to a conversation that is no longer open.
    const [answeredBase, id] = split(answer.url.pathname);
    if (refused) {
      applyConversation(answer.part, composer ? "problem" : "keep");
    } else if (id === openId()) {
      applyConversation(answer.part, composer || isUndo ? "replace" : "keep");
    } else if (!id) {
      // It went where this person does not see it.
      closeConversation();
      show(answer.url.pathname, true);
      refreshList();
    } else {
      const toast = $("#toast", answer.part);
      if (toast) showToast(toast);
      if (isUndo && answeredBase === base()) await go(answer.url);
    }
    if (document.body.dataset.live !== "on") refreshList();
  } catch (error) {
    sayWhatWentWrong(error);
    if (error instanceof Refused && [403, 404, 409].includes(error.status)) {
      refreshList();
      refreshConversation();
    }
  } finally {
    form.classList.remove("is-busy");
    composer?.release();
  }
}

/** Opens a menu of the timeline to where there is room. */
function placeMenu(details) {
  const menu = $(".menu", details);
  const room = $("#timeline-scroll").getBoundingClientRect();
  const button = details.getBoundingClientRect();
  const [above, below] = [button.top - room.top, room.bottom - button.bottom];
  menu.classList.toggle("up", below < menu.offsetHeight + 12 && above > below);
  menu.classList.toggle("end", button.left + menu.offsetWidth > room.right - 8);
  menu.style.maxHeight = `${Math.max(above, below) - 16}px`;
}

export function startPage() {
  document.addEventListener("click", (event) => {
    if (event.defaultPrevented || event.button !== 0 || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    const link = event.target.closest("a");
    if (link?.id === "more") {
      event.preventDefault();
      return void loadMore(link).catch(sayWhatWentWrong);
    }
    if (link?.dataset.part) {
      event.preventDefault();
      return void go(new URL(link.href)).catch(reportUnlessAborted);
    }
    const what = event.target.closest("[data-do]")?.dataset.do;
    if (what === "dismiss") $("#toast").hidden = true;
    if (what === "panel" && matchMedia("(min-width: 1280px)").matches) {
      event.preventDefault();
      localStorage.setItem("panel", $(".app").classList.toggle("panel-off") ? "off" : "on");
    }
    if (event.target.closest("#fresh")) $("#list-scroll").scrollTo({ top: 0, behavior: "smooth" });
    if (event.target.closest("#newer")) {
      $("#timeline-scroll").scrollTo({ top: 0, behavior: "smooth" });
      $("#newer").hidden = true;
    }
    for (const menu of document.querySelectorAll("details[data-pop][open]")) {
      if (!menu.contains(event.target)) menu.open = false;
    }
  });
  document.addEventListener("toggle", (event) => {
    if (event.target.open && event.target.closest("#timeline .pop")) placeMenu(event.target);
  }, true);
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (form.dataset.form !== "conversation" && form.dataset.form !== "reply") return;
    event.preventDefault();
    if (!form.classList.contains("is-busy")) submit(form, event.submitter);
  });
  addEventListener("popstate", () => {
    if (location.pathname !== shownPath) go(new URL(location.href), { push: false }).catch(reportUnlessAborted);
  });
  document.addEventListener("scroll", (event) => {
    if (event.target.id === "timeline-scroll" && Math.abs(event.target.scrollTop) < 40) $("#newer").hidden = true;
  }, true);
  watchListScroll();
  watchUndo(document);
  if (localStorage.getItem("panel") === "off") $(".app").classList.add("panel-off");
  // `?done=` chose the toast; a reload must not show it again.
  if (new URLSearchParams(location.search).has("all")) $("#conversation").dataset.all = "1";
  history.replaceState(null, "", location.pathname + location.hash);
  setTitle();
  setInterval(ageWaiting, 30_000);
  selectedItem()?.scrollIntoView({ block: "nearest" });
  if (!$("#toast").hidden) showToast($("#toast"));
}
