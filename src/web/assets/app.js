// Makes the server's pages live. Every link and form works without this file; with it they are fetched and merged in place.
//
//   page.js      fetching, merging, navigation, forms, toast
//   live.js      server-sent events, the lost line, the locked session
//   composer.js  draft, counter, files, "somebody answered meanwhile"
//   health.js    the Health page
//   voice.js     the voicemail player          keys.js  the keyboard
//   start.js     the page before the inbox is open

import "./voice.js";
import { watchComposers } from "./composer.js";
import { watchKeys } from "./keys.js";
import { startHealth } from "./health.js";
import { startLive } from "./live.js";
import { startPage } from "./page.js";
import { followStart } from "./start.js";

document.documentElement.classList.add("js");

if (document.body.classList.contains("inbox")) {
  startPage();
  watchComposers();
  watchKeys();
  startLive();
}

if (document.body.classList.contains("starting")) followStart();
if (document.querySelector("#health")) startHealth();

// The length of a new password, as it grows.
for (const input of document.querySelectorAll("[data-count]")) {
  const meter = document.getElementById(input.dataset.count);
  input.addEventListener("input", () => {
    const length = [...input.value].length;
    meter.querySelector("meter").value = length;
    meter.querySelector("output").textContent = `${length} / ${meter.dataset.min}`;
  });
}
