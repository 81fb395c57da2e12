// A front desk's first morning in a real browser. `tests/it/browser.rs` starts the practice, delivers one message of each
// channel and runs this; what is printed last is read by it.
//
// Environment: LINK (a one-time link), SHOTS (a folder for screenshots), REPLY (what to answer by text).
import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { AxeBuilder } from "@axe-core/playwright";
import { chromium } from "playwright-core";

const { LINK, SHOTS, REPLY } = process.env;
const PASSWORD = "four quiet words here";
const WIDTHS = [1440, 1024, 390];
const flags = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--autoplay-policy=no-user-gesture-required",
];

mkdirSync(SHOTS, { recursive: true });
const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: flags });
const context = await browser.newContext({ ignoreHTTPSErrors: true, viewport: { width: 1440, height: 900 } });
const page = await context.newPage();
page.setDefaultTimeout(15_000);

// A page that breaks its own content policy, or throws, is a defect even if it looks right.
const complaints = [];
page.on("pageerror", (error) => complaints.push(`error: ${error.message}`));
page.on("console", (message) => {
  if (message.type() === "error") complaints.push(`console: ${message.text()}`);
});

async function shoot(name) {
  for (const scheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme: scheme, reducedMotion: "reduce" });
    for (const width of WIDTHS) {
      await page.setViewportSize({ width, height: 900 });
      await page.screenshot({ path: `${SHOTS}/${name}-${width}-${scheme}.png` });
      const wide = await page.evaluate(() => document.documentElement.scrollWidth > window.innerWidth + 1);
      assert.ok(!wide, `${name} scrolls sideways at ${width} px`);
    }
  }
  await page.emulateMedia({ colorScheme: "light", reducedMotion: "reduce" });
  await page.setViewportSize({ width: 1440, height: 900 });
}

async function accessible(name) {
  const { violations } = await new AxeBuilder({ page }).withTags(["wcag2a", "wcag2aa", "wcag22aa"]).analyze();
  const words = violations.map((v) => `${v.id}: ${v.nodes.map((node) => node.target).join(", ")}`);
  assert.deepEqual(words, [], `${name} is not accessible`);
}

const items = page.locator("#items a.item");
const itemOf = (channel) => items.filter({ hasText: channel }).first();
const open = async (channel) => {
  await itemOf(channel).click();
  await page.locator("#timeline").waitFor();
};

try {
  // The one-time link sets a password and leads in.
  await page.goto(LINK);
  await shoot("welcome");
  await page.fill("input[name=password]", PASSWORD);
  await page.fill("input[name=again]", PASSWORD);
  await Promise.all([page.waitForURL(/\/(login|inbox)/), page.click("button[type=submit]")]);
  if (page.url().includes("/login")) {
    await page.fill("input[name=login]", "nina");
    await page.fill("input[name=password]", PASSWORD);
    await Promise.all([page.waitForURL(/\/inbox/), page.click("button[type=submit]")]);
  }
  await items.nth(2).waitFor();
  await page.locator("body[data-live=on]").waitFor({ timeout: 10_000 });
  await accessible("the list");
  await shoot("list");

  // One message of each channel.
  await open("E-mail");
  await page.getByText("the letter of my insurance").first().waitFor();
  await shoot("mail");
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
  await shoot("voicemail");

  // An answer by keyboard, seen to be sent.
  await open("SMS");
  await accessible("a conversation");
  await page.keyboard.press("r");
  await page.keyboard.type(REPLY);
  await shoot("composing");
  await page.locator("#composer textarea[name=text]").focus();
  await page.keyboard.press("Control+Enter");
  const sent = page.locator("#timeline [data-state]").filter({ hasText: REPLY });
  await sent.waitFor();
  await page.locator("#timeline [data-state=delivered], #timeline [data-state=sent]").waitFor({ timeout: 20_000 });
  await shoot("sent");

  // Keys, help, and a new message that arrives by itself.
  await page.keyboard.press("Escape");
  await page.locator("body").click({ position: { x: 5, y: 5 } });
  await page.keyboard.press("?");
  await page.locator("#help").waitFor();
  await shoot("help");
  await page.keyboard.press("Escape");
  console.log("READY FOR ANOTHER");
  await page.getByText("One more question").first().waitFor({ timeout: 15_000 });
  await shoot("arrived");

  assert.deepEqual(complaints, []);
  console.log("DONE");
} catch (error) {
  await page.screenshot({ path: `${SHOTS}/failed.png`, fullPage: true }).catch(() => {});
  console.error(complaints.join("\n"));
  console.error(error);
  process.exitCode = 1;
} finally {
  await browser.close();
}
