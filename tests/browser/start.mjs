// The start page of a sealed store in a real browser, from the first look to the log-in. `tests/it/browser.rs` starts the
// practice and runs this.
//
// Environment: URL (any page of the practice), WORDS (its passphrase), SHOTS (a folder for screenshots).
import assert from "node:assert/strict";
import { Desk, launch } from "./desk.mjs";

const { URL: url, WORDS } = process.env;
const browser = await launch();
// Every answer before the inbox is open is a 503, and wrong words are a 403: browsers note each.
const desk = await Desk.at(browser, /^Failed to load resource: the server responded with a status of/);
const { page } = desk;
const shoot = (name) => desk.shoot(name, (scheme) => desk.accessible(`${name} (${scheme})`));

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
  const other = await page.context().newPage();
  await other.goto(url);
  await field.fill(WORDS);
  await page.keyboard.press("Enter");
  await page.waitForURL(/\/login/);
  await page.getByRole("button", { name: "Log in" }).waitFor();
  assert.match(page.url(), /next=\/inbox\/mine/);
  await other.waitForURL(/\/login/);

  assert.deepEqual(desk.complaints, []);
} catch (error) {
  await desk.failed("failed-start", error);
} finally {
  await browser.close();
}
