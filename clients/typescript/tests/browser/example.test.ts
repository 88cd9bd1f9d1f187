// The page of the examples, as somebody sees it who uses it.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import type { Browser, Page } from "puppeteer-core";
import { somebody, startBaton, startProgram } from "../support/baton.js";
import { shoot, startBrowser } from "../support/browser.js";

const root = (path: string) => fileURLToPath(new URL(`../../../../${path}`, import.meta.url));
const BINARY = process.env["EXAMPLE"] ?? root("target/debug/example-axum-api");

let browser: Browser;
let server: { origin: string; stop(): Promise<void> };

before(async () => {
  [server, browser] = await Promise.all([startProgram(() => [BINARY, "127.0.0.1:0"]), startBrowser()]);
});
after(() => Promise.all([browser?.close(), server?.stop()]));

/** A page whose text is to come to say this. */
const says = (page: Page, selector: string, text: string) =>
  page.waitForFunction((selector, text) => document.querySelector(selector)?.textContent?.includes(text), {}, selector, text);

async function fillIn(page: Page, who: { email: string; password: string }, button: "signIn" | "signUp") {
  await page.locator("input[name=email]").fill(who.email);
  await page.locator("input[name=password]").fill(who.password);
  await page.locator(`button[value=${button}]`).click();
}

/** Somebody who has not been there before. */
async function registersAndOrders(page: Page, who: { email: string; password: string }): Promise<void> {
  await fillIn(page, who, "signUp");
  await says(page, "#who", `hello, ${who.email}`);
  await page.locator("#order button").click();
  await says(page, "#log", "ordered tea");
  await page.locator("#batch").click();
  for (const item of ["milk", "sugar", "lemon", "cake"]) await says(page, "#log", `ordered ${item}`);
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
  await page.goto(server.origin);
  await says(page, "#who", "hello, stranger");
  await shoot(page, "1-stranger");

  await registersAndOrders(page, who);
  await shoot(page, "2-ordered");

  // Another device, in the dark.
  const device = await browser.createBrowserContext();
  t.after(() => device.close());
  const there = await device.newPage();
  await there.emulateMediaFeatures([{ name: "prefers-color-scheme", value: "dark" }]);
  await there.setViewport({ width: 1000, height: 700 });
  await there.goto(server.origin);
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

test("the same page, whose backend is in Python and behind baton", async (t) => {
  const backend = await startProgram(() => ["python3", root("examples/python-backend/backend.py"), "0"]);
  t.after(() => backend.stop());
  const upstream = (await readFile(root("examples/python-backend/upstream"), "utf8")).replaceAll("http://127.0.0.1:8000", backend.origin);
  const baton = await startBaton(`upstream=${upstream}`);
  t.after(() => baton.stop());
  const context = await browser.createBrowserContext();
  t.after(() => context.close());
  const page = await context.newPage();
  const who = somebody();

  await page.goto(baton.origin);
  await says(page, "#who", "hello, stranger");
  await registersAndOrders(page, who);
  await shoot(page, "7-python");

  const told = (fetch: string) =>
    page.evaluate(`(async () => {
      const { Baton } = await import("/client/index.js");
      const baton = new Baton({ url: "/auth" });
      await baton.restore();
      const answer = await ${fetch}("/told", { headers: { "X-Auth-Uid": "the owner" } });
      return { headers: await answer.json(), token: answer.headers.get("access-token"), kept: JSON.stringify({ ...localStorage }) };
    })()`) as Promise<{ headers: Record<string, string>; token: string | null; kept: string }>;
  const { headers, kept } = await told("baton.fetch");
  assert.equal(headers["x-auth-uid"], who.email);
  assert.match(headers["x-auth-user-id"] ?? "", /^\d+$/);
  assert.equal(headers["x-auth-realm"], "user");
  assert.match(kept, new RegExp(headers["x-auth-session"] ?? "none"), "the session is the one of the page");
  const tokens = kept.match(/\bE[\w-]{27}\b/g) ?? [];
  assert.notEqual(tokens.length, 0);
  for (const secret of [...tokens, "access-token", "authorization", "cookie"]) {
    assert.ok(!JSON.stringify(headers).includes(secret), `the backend is told ${secret}`);
  }

  await page.locator("#signOut").click();
  await says(page, "#who", "hello, stranger");
  const stranger = await told("fetch");
  assert.deepEqual(Object.keys(stranger.headers).filter((name) => name.startsWith("x-auth-")), []);
  assert.equal(await page.evaluate(() => fetch("/orders", { method: "POST", body: "{}" }).then((answer) => answer.status)), 401);
});
