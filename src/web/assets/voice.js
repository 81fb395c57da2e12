// <voice-player> turns <audio controls> into a player made for voicemail: jump five seconds, change the speed, see where
// somebody speaks. Without this file the browser's own controls stay.

const RATES = [1, 1.25, 1.5, 2, 0.75];
const JUMP_SECONDS = 5;

const clock = (seconds) => `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;

class VoicePlayer extends HTMLElement {
  connectedCallback() {
    if (this.audio) return;
    const template = document.querySelector("#player");
    if (!template) return;
    this.audio = this.querySelector("audio");
    const wave = this.querySelector(".wave");
    this.append(template.content.cloneNode(true));
    this.audio.controls = false;
    this.classList.add("live");
    this.seekBar = this.querySelector(".seek");
    this.wanted = 0;
    if (wave) {
      this.seekBar.querySelector(".bar").remove();
      this.seekBar.append(wave);
      this.drawPlayed(wave);
    }
    this.wire();
    this.show();
  }

  disconnectedCallback() {
    // Moving within the page also disconnects; only what has really gone falls silent.
    queueMicrotask(() => this.isConnected || this.audio?.pause());
  }

  get duration() {
    if (Number.isFinite(this.audio.duration)) return this.audio.duration;
    const [minutes, seconds] = this.dataset.duration.split(":").map(Number);
    return minutes * 60 + seconds || 0;
  }

  get position() {
    return this.audio.readyState ? this.audio.currentTime : this.wanted;
  }

  /** A second, darker copy of the waveform, clipped at the place that is playing. */
  drawPlayed(wave) {
    const id = `played-${(VoicePlayer.count = (VoicePlayer.count ?? 0) + 1)}`;
    const make = (name) => document.createElementNS("http://www.w3.org/2000/svg", name);
    const clip = make("clipPath");
    clip.id = id;
    this.played = make("rect");
    this.played.setAttribute("height", "32");
    this.full = wave.viewBox.baseVal.width;
    clip.append(this.played);
    const path = wave.querySelector(".all").cloneNode();
    path.setAttribute("class", "played");
    path.setAttribute("clip-path", `url(#${id})`);
    wave.append(clip, path);
  }

  wire() {
    const on = (selector, event, action) => this.querySelector(selector).addEventListener(event, action);
    on(".play", "click", () => this.toggle());
    on(".rewind", "click", () => this.jump(-JUMP_SECONDS));
    on(".forward", "click", () => this.jump(JUMP_SECONDS));
    on(".rate", "click", () => this.nextRate());
    for (const event of ["play", "pause", "ended", "timeupdate", "loadedmetadata", "seeked"]) {
      this.audio.addEventListener(event, () => this.show());
    }
    this.audio.addEventListener("loadedmetadata", () => this.wanted && (this.audio.currentTime = this.wanted));
    this.audio.addEventListener("error", () => {
      this.querySelector(".trouble").hidden = false;
      this.show();
    });
    this.seekBar.addEventListener("pointerdown", (event) => {
      this.seekBar.setPointerCapture(event.pointerId);
      this.seekTo(event);
    });
    this.seekBar.addEventListener("pointermove", (event) => event.buttons && this.seekTo(event));
    this.seekBar.addEventListener("keydown", (event) => {
      const steps = { ArrowLeft: -JUMP_SECONDS, ArrowRight: JUMP_SECONDS, ArrowDown: -JUMP_SECONDS, ArrowUp: JUMP_SECONDS, PageDown: -15, PageUp: 15, Home: -Infinity, End: Infinity };
      if (!(event.key in steps)) return;
      event.preventDefault();
      this.jump(steps[event.key]);
    });
  }

  toggle() {
    if (!this.audio.paused) return this.audio.pause();
    document.querySelectorAll("audio").forEach((other) => other !== this.audio && other.pause());
    this.querySelector(".trouble").hidden = true;
    // A refusal shows itself by the error event.
    this.audio.play().catch(() => {});
  }

  jump(seconds) {
    this.moveTo(this.position + seconds);
  }

  seekTo(event) {
    const box = this.seekBar.getBoundingClientRect();
    this.moveTo(((event.clientX - box.left) / box.width) * this.duration);
  }

  moveTo(seconds) {
    this.wanted = Math.min(Math.max(seconds, 0), this.duration);
    if (this.audio.readyState) this.audio.currentTime = this.wanted;
    this.show();
  }

  nextRate() {
    const rate = RATES[(RATES.indexOf(this.audio.playbackRate) + 1) % RATES.length];
    this.audio.playbackRate = this.audio.defaultPlaybackRate = rate;
    this.show();
  }

  show() {
    const { position, duration } = this;
    const share = duration ? position / duration : 0;
    const play = this.querySelector(".play");
    play.setAttribute("aria-label", play.dataset[this.audio.paused ? "play" : "pause"]);
    play.querySelector("use").setAttribute("href", this.audio.paused ? "#i-play" : "#i-pause");
    this.querySelector(".clock").textContent = duration ? `${clock(position)} / ${clock(duration)}` : clock(position);
    const rate = this.querySelector(".rate");
    rate.textContent = `${this.audio.playbackRate}×`;
    rate.setAttribute("aria-label", `${rate.dataset.label} ${this.audio.playbackRate}×`);
    this.seekBar.setAttribute("aria-valuemax", Math.round(duration));
    this.seekBar.setAttribute("aria-valuenow", Math.round(position));
    this.seekBar.setAttribute("aria-valuetext", `${clock(position)} / ${clock(duration)}`);
    if (this.played) this.played.setAttribute("width", share * this.full);
    else this.seekBar.querySelector(".bar i").style.width = `${share * 100}%`;
  }
}

customElements.define("voice-player", VoicePlayer);
