// What the trials in a real browser share: a desk with its page, how it looks at every width, and whether everybody can use it.
import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { AxeBuilder } from "@axe-core/playwright";
import { chromium } from "playwright-core";

const { SHOTS } = process.env;
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

/** A browser as a practice has it. */
export function launch() {
  mkdirSync(SHOTS, { recursive: true });
  return chromium.launch({ executablePath: "/usr/bin/chromium", args: flags });
}

/** Somebody's place of work: a page with cookies of its own. */
export class Desk {
  static async at(browser, expected) {
    const context = await browser.newContext({ ignoreHTTPSErrors: true, viewport: { width: 1440, height: 900 } });
    return new Desk(await context.newPage(), expected);
  }

  /** What the console says and is `expected`, if anything is, is no complaint. */
  constructor(page, expected = /^$/) {
    this.page = page;
    page.setDefaultTimeout(15_000);
    // A page that breaks its own content policy, or throws, is a defect even if it looks right.
    this.complaints = [];
    page.on("pageerror", (error) => this.complaints.push(`error: ${error.message}`));
    page.on("console", (message) => {
      if (message.type() === "error" && !expected.test(message.text())) this.complaints.push(`console: ${message.text()}`);
    });
  }

  /** The one-time link asks for a password and leads in. */
  async enter(link, login, shots = false) {
    const { page } = this;
    await page.goto(link);
    if (shots) await this.shoot("welcome");
    await page.fill("input[name=password]", PASSWORD);
    await page.fill("input[name=again]", PASSWORD);
    await Promise.all([page.waitForURL(/\/(login|inbox)/), page.click("button[type=submit]")]);
    if (page.url().includes("/login")) {
      await page.fill("input[name=login]", login);
      await page.fill("input[name=password]", PASSWORD);
      await Promise.all([page.waitForURL(/\/inbox/), page.click("button[type=submit]")]);
    }
  }

  /** Pictures at every width; `look` is called once in each scheme. */
  async shoot(name, look = async () => {}) {
    const { page } = this;
    for (const scheme of ["light", "dark"]) {
      await page.emulateMedia({ colorScheme: scheme, reducedMotion: "reduce" });
      await look(scheme);
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

  async accessible(name) {
    const { violations } = await new AxeBuilder({ page: this.page }).withTags(["wcag2a", "wcag2aa", "wcag22aa"]).analyze();
    const words = violations.map((v) => `${v.id}: ${v.nodes.map((node) => node.target).join(", ")}`);
    assert.deepEqual(words, [], `${name} is not accessible`);
  }

  /** What the page looked like and complained about when a trial failed. */
  async failed(name, error) {
    await this.page.screenshot({ path: `${SHOTS}/${name}.png`, fullPage: true }).catch(() => {});
    console.error(this.complaints.join("\n"));
    if (error) console.error(error);
    process.exitCode = 1;
  }
}
