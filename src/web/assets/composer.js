// What is being written: saved as one types, counted for SMS, and never thrown away by an update.

import { countText } from "./segments.js";
import { isLocked, lock, setOffline } from "./live.js";
import { announce, word } from "./page.js";

const SAVE_AFTER_MS = 600;
const RETRY_AFTER_MS = 4000;
const composers = new WeakMap();

/** The composer below `root`, if a conversation is open. */
export function composerOf(root) {
  const form = root.querySelector("#composer");
  if (!form) return null;
  if (!composers.has(form)) composers.set(form, new Composer(form));
  return composers.get(form);
}

class Composer {
  constructor(form) {
    this.form = form;
    this.dirty = false;
    this.held = false;
    this.saving = null;
    this.files = [];
  }

  begin() {
    this.count();
  }

  get channel() {
    return this.form.querySelector("[name=way]:checked")?.dataset.channel;
  }

  get isEmpty() {
    return !this.form.text.value.trim() && !this.form.note.value.trim() && this.files.length === 0;
  }

  choose(channel) {
    const ways = [...this.form.querySelectorAll("[name=way]")];
    const wanted = channel === "note" ? ways.find((way) => way.value === "note") : ways.find((way) => way.value !== "note");
    const isRight = channel === "note" ? this.channel === "note" : this.channel !== "note";
    if (wanted && !isRight) {
      wanted.checked = true;
      this.count();
    }
    this.focus();
  }

  focus() {
    const field = this.channel === "note" ? this.form.note : this.form.text;
    field.focus();
    field.setSelectionRange(field.value.length, field.value.length);
  }

  // Drafts.

  changed() {
    this.dirty = true;
    this.count();
    this.tell("saving", false);
    this.later(SAVE_AFTER_MS);
  }

  later(ms) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.save(), ms);
  }

  /** Saves what is not saved yet; resolves when the server has it or has refused it. */
  async flush() {
    clearTimeout(this.timer);
    if (this.dirty && !this.held) await this.save();
  }

  async save() {
    if (this.saving) {
      await this.saving;
      if (!this.dirty) return;
    }
    if (isLocked() || this.held) return;
    this.dirty = false;
    this.saving = this.post();
    await this.saving;
    this.saving = null;
  }

  async post(keepalive = false) {
    const fields = new FormData(this.form);
    for (const name of ["file", "back", "cursor"]) fields.delete(name);
    try {
      const response = await fetch(this.form.dataset.draft, {
        method: "POST",
        headers: { "X-Part": "draft" },
        body: new URLSearchParams(fields),
        keepalive,
      });
      if (response.status === 401) lock();
      if (!response.ok) throw new Error(`HTTP ${response.status}`);
      const { saved } = await response.json();
      this.tell("saved", false, saved);
    } catch (error) {
      if (error instanceof TypeError) setOffline(true);
      this.dirty = true;
      this.tell("unsaved", true);
      this.later(RETRY_AFTER_MS);
    }
  }

  tell(name, isBad, at = "") {
    if (isBad) announce(word(name));
    const saved = this.form.querySelector("#saved");
    saved.classList.toggle("bad", isBad);
    saved.textContent = [word(name), at].filter(Boolean).join(" ");
  }

  // While it is being sent, nothing is saved: a late save would bring the draft back.

  hold() {
    this.held = true;
    clearTimeout(this.timer);
  }

  release() {
    this.held = false;
    if (this.dirty && this.form.isConnected) this.later(0);
  }

  // Counting a text's parts as the network will.

  count() {
    const segments = this.form.querySelector("#segments");
    if (this.channel !== "sms" || !this.form.text.value) {
      segments.textContent = "";
      return;
    }
    const { characters, room, parts, unicode } = countText(this.form.text.value);
    segments.textContent = `${characters} / ${room} · ${parts} ${segments.dataset[parts === 1 ? "one" : "many"]}${unicode ? ` · ${segments.dataset.unicode}` : ""}`;
    segments.classList.toggle("long", parts > 3);
  }

  // Files. An input's list cannot be edited in place, so it is set anew.

  addFiles(input) {
    this.files.push(...input.files);
    const max = Number(this.form.dataset.max);
    let total = 0;
    const fitting = this.files.filter((file) => (total += file.size) <= max);
    const refused = this.files.find((file) => !fitting.includes(file));
    this.files = fitting;
    this.problem(refused && `${refused.name} ${word("toolarge")} ${Math.floor(max / 1e6)} MB`);
    this.showFiles(input);
  }

  showFiles(input = this.form.file) {
    const transfer = new DataTransfer();
    this.files.forEach((file) => transfer.items.add(file));
    input.files = transfer.files;
    const list = this.form.querySelector(".chosen-files");
    list.hidden = this.files.length === 0;
    list.replaceChildren(...this.files.map((file, place) => {
      const chip = this.form.querySelector("#chosen-file").content.cloneNode(true).firstElementChild;
      chip.querySelector("span").textContent = file.name;
      const button = chip.querySelector("button");
      button.setAttribute("aria-label", `${button.getAttribute("aria-label")} ${file.name}`);
      button.onclick = () => {
        this.files.splice(place, 1);
        this.showFiles();
        (this.form.querySelector(".chosen-files button") ?? this.form.file).focus();
      };
      return chip;
    }));
  }

  problem(text) {
    this.form.querySelector(":scope > .problem")?.remove();
    if (!text) return;
    const line = Object.assign(document.createElement("p"), { className: "problem", textContent: text });
    line.setAttribute("role", "alert");
    this.form.querySelector("#conflict").after(line);
  }

  // Updates from the server.

  merge(next, how, newMessages) {
    if (!next) return;
    if (how === "replace" || (how === "keep" && this.isEmpty && !this.dirty && !this.form.contains(document.activeElement))) {
      const hadFocus = this.form.contains(document.activeElement);
      this.form.replaceWith(next);
      const fresh = composerOf(document);
      fresh.begin();
      if (how === "replace" && hadFocus) fresh.focus();
      return;
    }
    if (how === "problem") {
      this.form.querySelector("#conflict").replaceWith(next.querySelector("#conflict"));
      this.form.querySelector(":scope > .problem")?.remove();
      const problem = next.querySelector(":scope > .problem");
      if (problem) this.form.querySelector("#conflict").after(problem);
      this.form.cursor.value = next.cursor.value;
      (this.form.querySelector(".conflict button") ?? this).focus();
      return;
    }
    if (this.isEmpty) this.form.cursor.value = next.cursor.value;
    else if (newMessages.length) this.warn(newMessages.at(-1));
  }

  /** Somebody else's message came while this one is being written: the cursor waits for a look. */
  warn(message) {
    const notice = this.form.querySelector("#live-conflict").content.cloneNode(true);
    notice.querySelector("[data-who]").textContent = message.querySelector(".meta b").textContent;
    notice.querySelector(message.matches(".out") ? "[data-theirs]" : "[data-ours]").remove();
    this.form.querySelector("#conflict").replaceChildren(notice);
  }

  seen() {
    this.form.cursor.value = document.querySelector("#timeline").dataset.cursor;
    this.form.querySelector("#conflict").replaceChildren();
    this.focus();
  }

  press(name) {
    const button = this.channel === "note" ? this.form.querySelector("[data-do=note-save]") : this.form.querySelector(`[data-do=${name}]`);
    button?.click();
  }
}

export function watchComposers() {
  const within = (event) => event.target.closest?.("#composer") && composerOf(document);
  document.addEventListener("input", (event) => {
    const composer = within(event);
    if (composer && event.target.type !== "file") composer.changed();
  });
  document.addEventListener("change", (event) => {
    if (event.target.type === "file") within(event)?.addFiles(event.target);
  });
  document.addEventListener("click", (event) => {
    if (event.target.closest("[data-do=seen]")) within(event)?.seen();
    if (event.target.closest("a[data-do=note]")) {
      event.preventDefault();
      composerOf(document)?.choose("note");
    }
  });
  document.addEventListener("keydown", (event) => {
    const composer = within(event);
    if (!composer || event.key !== "Enter" || event.isComposing) return;
    if (event.ctrlKey || event.metaKey) {
      event.preventDefault();
      composer.press(event.shiftKey ? "send-resolve" : "send");
    } else if (event.target.name === "subject") {
      event.preventDefault();
      composer.focus();
    }
  });
  // The last words of a page that goes away.
  addEventListener("pagehide", () => {
    const composer = composerOf(document);
    if (composer?.dirty && !composer.held) composer.post(true);
  });
  addEventListener("beforeunload", (event) => {
    const composer = composerOf(document);
    if (composer && (composer.files.length || composer.form.querySelector("#saved").classList.contains("bad"))) event.preventDefault();
  });
  composerOf(document)?.begin();
}
