// A line breaks while a nurse and a manager look at the Health page, and works again. `tests/it/browser.rs` starts the
// practice and runs this; it unplugs the modem and plugs it in when asked by a line.
//
// Environment: NURSE and MANAGER (one-time links), SHOTS (a folder for screenshots).
import assert from "node:assert/strict";
import { Desk, launch } from "./desk.mjs";

const { NURSE, MANAGER } = process.env;
const browser = await launch();
const nurse = await Desk.at(browser);
const manager = await Desk.at(browser);
const desks = [nurse, manager];
const verdict = (desk, kind) => desk.page.locator(`#health .verdict.${kind}`).waitFor();

try {
  await nurse.enter(NURSE, "nina");
  await manager.enter(MANAGER, "mona");
  for (const { page } of desks) {
    await page.click("#rail .health-link");
    await page.locator("#health .verdict.ok").waitFor();
    // A reload would lose this.
    await page.evaluate(() => (window.isSamePage = true));
  }
  assert.equal(await nurse.page.locator("#jobs-title").count(), 0, "a nurse sees the lines only");
  assert.equal(await manager.page.locator("#jobs-title").count(), 1, "a manager sees everything");

  // The fault shows by itself, and what to do.
  console.log("UNPLUG");
  await Promise.all(desks.map((desk) => verdict(desk, "bad")));
  for (const [name, desk] of [["nurse", nurse], ["manager", manager]]) {
    await desk.accessible(`the Health page with a fault, for a ${name}`);
    await desk.shoot(`health-fault-${name}`);
  }
  for (const { page } of desks) {
    assert.match(await page.locator("#health .line.down").innerText(), /call people instead of texting/);
  }
  assert.equal(await nurse.page.getByText("frontdesk doctor").count(), 0, "commands are for those who look after the server");
  assert.match(await manager.page.locator("#health .fault").innerText(), /frontdesk doctor on the server tries the line/);

  // It goes by itself.
  console.log("PLUG IN");
  await Promise.all(desks.map((desk) => verdict(desk, "ok")));
  for (const { page, complaints } of desks) {
    assert.ok(await page.evaluate(() => window.isSamePage), "nothing was reloaded");
    assert.deepEqual(complaints, []);
  }
  console.log("DONE");
} catch (error) {
  await manager.failed("failed-health-manager");
  await nurse.failed("failed-health-nurse", error);
} finally {
  await browser.close();
}
