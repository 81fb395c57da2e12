// The start page of a sealed store in a real browser, from the first look to the log-in. `tests/it/browser.rs` starts the
// practice and runs this.
//
// Environment: URL (any page of the practice), WORDS (its passphrase), SHOTS (a folder for screenshots).
import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { AxeBuilder } from "@axe-core/playwright";
import { chromium } from "playwright-core";

const { URL: url, WORDS, SHOTS } = process.env;
const WIDTHS = [1440, 1024, 390];
const flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"];

mkdirSync(SHOTS, { recursive: true });
const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: flags });
const context = await browser.newContext({ ignoreHTTPSErrors: true, viewport: { width: 1440, height: 900 } });
const page = await context.newPage();
page.setDefaultTimeout(15_000);

const complaints = [];
page.on("pageerror", (error) => complaints.push(`error: ${error.message}`));
page.on("console", (message) => {
  // Every answer before the inbox is open is a 503, and wrong words are a 403: browsers note each.
  const isStatus = message.text().startsWith("Failed to load resource: the server responded with a status of");
  if (message.type() === "error" && !isStatus) complaints.push(`console: ${message.text()}`);
});

async function shoot(name) {
  for (const scheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme: scheme, reducedMotion: "reduce" });
    const { violations } = await new AxeBuilder({ page }).withTags(["wcag2a", "wcag2aa", "wcag22aa"]).analyze();
    const words = violations.map((v) => `${v.id}: ${v.nodes.map((node) => node.target).join(", ")}`);
    assert.deepEqual(words, [], `${name} (${scheme}) is not accessible`);
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

try {
  const first = await page.goto(url);
  assert.equal(first.status(), 503);
  await page.getByRole("heading", { name: "The records are sealed" }).waitFor();
  await shoot("sealed");

  // By keyboard alone: the field has the focus; what is typed can be shown; half-typed words stay where they are.
  const field = page.locator("#words");
  assert.ok(await field.evaluate((element) => element === document.activeElement));
  await page.keyboard.type("not these words");
  await page.keyboard.press("Tab");
  await page.keyboard.press("Space");
  assert.equal(await field.getAttribute("type"), "text");
  const asked = page.waitForResponse((response) => response.request().headers()["x-part"] === "start");
  assert.equal((await asked).status(), 503);
  assert.equal(await field.inputValue(), "not these words");
  await field.focus();
  await page.keyboard.press("Enter");
  await page.getByRole("alert").waitFor();
  assert.match(await page.getByRole("alert").innerText(), /does not open the records/);
  assert.equal(await field.inputValue(), "");
  await shoot("sealed-wrong");

  // Another page is open elsewhere: it goes on by itself.
  const other = await context.newPage();
  await other.goto(url);
  await field.fill(WORDS);
  await page.keyboard.press("Enter");
  await page.waitForURL(/\/login/);
  await page.getByRole("button", { name: "Log in" }).waitFor();
  assert.match(page.url(), /next=\/inbox\/mine/);
  await other.waitForURL(/\/login/);

  assert.deepEqual(complaints, []);
} catch (error) {
  await page.screenshot({ path: `${SHOTS}/failed-start.png`, fullPage: true }).catch(() => {});
  console.error(complaints.join("\n"));
  console.error(error);
  process.exitCode = 1;
} finally {
  await browser.close();
}
