// The page of the axum example, as somebody sees it who uses it.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import type { Browser, Page } from "puppeteer-core";
import { somebody, WATCH } from "../support/baton.js";
import { shoot, startBrowser } from "../support/browser.js";

const BINARY = process.env["EXAMPLE"] ?? fileURLToPath(new URL("../../../../target/debug/example-axum-api", import.meta.url));

let browser: Browser;
let origin: string;
let stop: () => Promise<unknown>;

before(async () => {
  const folder = await mkdtemp(join(tmpdir(), "baton-client-"));
  const child = spawn("sh", ["-c", WATCH, "sh", folder, BINARY, "127.0.0.1:0"], { stdio: ["pipe", "pipe", "inherit"] });
  const ended = new Promise((resolve) => child.on("close", resolve));
  stop = () => {
    child.stdin.end();
    return ended;
  };
  for await (const line of createInterface(child.stdout)) {
    const found = /^listening on (\S+)/.exec(line)?.[1];
    if (!found) continue;
    origin = found;
    break;
  }
  assert.ok(origin, `${BINARY} did not start`);
  browser = await startBrowser();
});
after(async () => {
  await browser?.close();
  await stop?.();
});

/** A page whose text is to come to say this. */
const says = (page: Page, selector: string, text: string) =>
  page.waitForFunction((selector, text) => document.querySelector(selector)?.textContent?.includes(text), {}, selector, text);

async function fillIn(page: Page, who: { email: string; password: string }, button: "signIn" | "signUp") {
  await page.locator("input[name=email]").fill(who.email);
  await page.locator("input[name=password]").fill(who.password);
  await page.locator(`button[value=${button}]`).click();
}

test("somebody registers, orders, is signed out from elsewhere and signs in again", async (t) => {
  const who = somebody();
  const faults: string[] = [];
  const context = await browser.createBrowserContext();
  t.after(() => context.close());
  const page = await context.newPage();
  page.on("pageerror", (error) => faults.push(String(error)));
  page.on("console", (line) => line.type() === "error" && faults.push(line.text()));
  await page.setViewport({ width: 390, height: 700 });
  await page.goto(origin);
  await says(page, "#who", "hello, stranger");
  await shoot(page, "1-stranger");

  await fillIn(page, who, "signUp");
  await says(page, "#who", `hello, ${who.email}`);
  await page.locator("#order button").click();
  await says(page, "#log", "ordered tea");
  await page.locator("#batch").click();
  for (const item of ["milk", "sugar", "lemon", "cake"]) await says(page, "#log", `ordered ${item}`);
  await shoot(page, "2-ordered");

  // Another device, in the dark.
  const device = await browser.createBrowserContext();
  t.after(() => device.close());
  const there = await device.newPage();
  await there.emulateMediaFeatures([{ name: "prefers-color-scheme", value: "dark" }]);
  await there.setViewport({ width: 1000, height: 700 });
  await there.goto(origin);
  await says(there, "#who", "hello, stranger");
  await fillIn(there, { ...who, password: "not the right one" }, "signIn");
  await there.waitForFunction(() => document.querySelector("#door .fault")?.textContent !== "");
  await shoot(there, "3-wrong-password");
  await fillIn(there, who, "signIn");
  await says(there, "#devices", "This one");
  await shoot(there, "4-two-devices");
  await there.locator("#devices button").click();
  await there.waitForFunction(() => document.querySelectorAll("#devices li").length === 1);

  await page.locator("#order button").click();
  await says(page, "#log", "the session is over: session_revoked");
  await says(page, "#who", "hello, stranger");
  await shoot(page, "5-ended-elsewhere");
  await fillIn(page, who, "signIn");
  await says(page, "#who", `hello, ${who.email}`);

  await page.setOfflineMode(true);
  await page.locator("#order button").click();
  await says(page, "#order .fault", "could not be reached");
  await shoot(page, "6-offline");
  await page.setOfflineMode(false);
  await page.reload();
  await says(page, "#who", `hello, ${who.email}`);
  await page.locator("#signOut").click();
  await says(page, "#who", "hello, stranger");
  // What the browser itself says of a 401 and of having no network.
  assert.deepEqual(faults.filter((fault) => !/Failed to load resource/.test(fault)), []);
});
