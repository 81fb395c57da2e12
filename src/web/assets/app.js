// Makes the server's pages live. Every link and form works without this file; with it they are fetched and merged in place.
//
//   page.js      fetching, merging, navigation, forms, toast
//   live.js      server-sent events, the lost line, the locked session
//   composer.js  draft, counter, files, "somebody answered meanwhile"
//   voice.js     the voicemail player          keys.js  the keyboard

import "./voice.js";
import { watchComposers } from "./composer.js";
import { watchKeys } from "./keys.js";
import { startLive } from "./live.js";
import { startPage } from "./page.js";

document.documentElement.classList.add("js");

if (document.body.classList.contains("inbox")) {
  startPage();
  watchComposers();
  watchKeys();
  startLive();
}

// The length of a new password, as it grows.
for (const input of document.querySelectorAll("[data-count]")) {
  const meter = document.getElementById(input.dataset.count);
  input.addEventListener("input", () => {
    const length = [...input.value].length;
    meter.querySelector("meter").value = length;
    meter.querySelector("output").textContent = `${length} / ${meter.dataset.min}`;
  });
}
