// A front desk's first morning in a real browser. `tests/it/browser.rs` starts the practice, delivers one message of each
// channel and runs this; what is printed last is read by it.
//
// Environment: LINK (a one-time link), SHOTS (a folder for screenshots), REPLY (what to answer).
import assert from "node:assert/strict";
import { Desk, launch } from "./desk.mjs";

const { LINK, REPLY } = process.env;
const browser = await launch();
const desk = await Desk.at(browser);
const { page, complaints } = desk;

const items = page.locator("#items a.item");
const itemOf = (channel) => items.filter({ hasText: channel }).first();
const open = async (channel) => {
  await itemOf(channel).click();
  await page.locator("#timeline").waitFor();
};

/** Goes down the list with J, and up with K, until a message of the channel is reached. */
async function openByKeys(channel) {
  const wanted = itemOf(channel);
  const isReached = () => wanted.evaluate((item) => item === document.activeElement);
  const id = await wanted.getAttribute("href");
  for (const key of ["k", "j"]) {
    for (let step = await items.count(); step > 0 && !(await isReached()); step--) await page.keyboard.press(key);
  }
  assert.ok(await isReached(), `the keys do not reach ${channel}`);
  await page.keyboard.press("Enter");
  await page.waitForURL((url) => url.pathname === id);
  await page.locator(`#conversation[data-id="${id.split("/").at(-1)}"] #composer`).waitFor();
}

/** Writes the answer with the keys only, and waits until it has left. */
async function answer(channel, shot) {
  await page.keyboard.press("r");
  await page.keyboard.type(`${REPLY} (${channel})`);
  await desk.shoot(shot);
  await page.locator("#composer textarea[name=text]:focus").waitFor();
  await page.keyboard.press("Control+Enter");
  const sent = page.locator("#timeline [data-state=delivered], #timeline [data-state=sent]");
  await sent.filter({ hasText: `${REPLY} (${channel})` }).waitFor({ timeout: 20_000 });
}

try {
  await desk.enter(LINK, "nina", true);
  await items.nth(2).waitFor();
  await page.locator("body[data-live=on]").waitFor({ timeout: 10_000 });
  await desk.accessible("the list");
  await desk.shoot("list");

  // One message of each channel.
  await open("E-mail");
  await page.getByText("the letter of my insurance").first().waitFor();
  await desk.shoot("mail");
  await open("Voicemail");
  const audio = page.locator("voice-player audio");
  await audio.waitFor({ state: "attached" });
  const played = await audio.evaluate(async (element) => {
    await element.play();
    await new Promise((done, failed) => {
      element.addEventListener("timeupdate", () => element.currentTime > 0.1 && done());
      setTimeout(() => failed(new Error("the audio does not play")), 10_000);
    });
    element.pause();
    const seeked = new Promise((done) => element.addEventListener("seeked", done, { once: true }));
    element.currentTime = element.duration / 2;
    await seeked;
    return { duration: element.duration, at: element.currentTime };
  });
  assert.ok(played.duration > 1.5 && Math.abs(played.at - played.duration / 2) < 0.2, JSON.stringify(played));
  await desk.shoot("voicemail");

  // Each is answered by keyboard alone, and seen to be sent.
  await open("SMS");
  await desk.accessible("a conversation");
  await answer("SMS", "composing");
  await desk.shoot("sent");
  for (const channel of ["E-mail", "Voicemail"]) {
    await page.keyboard.press("Escape");
    await openByKeys(channel);
    await answer(channel, `composing-${channel.toLowerCase()}`);
  }

  // Keys, help, and a new message that arrives by itself.
  await page.keyboard.press("Escape");
  await page.locator("body").click({ position: { x: 5, y: 5 } });
  await page.keyboard.press("?");
  await page.locator("#help").waitFor();
  await desk.shoot("help");
  await page.keyboard.press("Escape");
  console.log("READY FOR ANOTHER");
  await page.getByText("One more question").first().waitFor({ timeout: 15_000 });
  await desk.shoot("arrived");

  assert.deepEqual(complaints, []);
  console.log("DONE");
} catch (error) {
  await desk.failed("failed", error);
} finally {
  await browser.close();
}
