// The playground of `baton dev`, as somebody sees it who uses it.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { after, before, describe, test, type TestContext } from "node:test";
import { fileURLToPath } from "node:url";
import type { Browser, Page } from "puppeteer-core";
import { linkInLetter, somebody, startBaton, type Server } from "../support/baton.js";
import { shoot, startBrowser } from "../support/browser.js";

/** Its window passes soon. */
let server: Server;
/** Its window does not pass while a test lasts. */
let patient: Server;
/** As it is by default. */
let stage: Server;
let browser: Browser;

before(async () => {
  [server, patient, stage, browser] = await Promise.all([
    startBaton("batch_request_buffer_throttle=1s"),
    startBaton("batch_request_buffer_throttle=10m"),
    startBaton(),
    startBrowser(),
  ]);
});
after(() => Promise.all([browser?.close(), server?.stop(), patient?.stop(), stage?.stop()]));

interface Look {
  width?: number;
  height?: number;
  scheme?: "light" | "dark";
  motion?: "reduce" | "no-preference";
}

/** A page of its own. At the end, nothing may have gone wrong in it and nothing have been asked of anybody else. */
async function open(
  t: TestContext,
  { origin }: Server,
  { width = 1280, height = 800, scheme = "light", motion = "no-preference" }: Look = {},
) {
  const context = await browser.createBrowserContext();
  const page = await context.newPage();
  const faults: string[] = [];
  page.on("pageerror", (error) => faults.push(String(error)));
  page.on("console", (line) => {
    // What the browser itself says of a 401.
    if (["error", "warn"].includes(line.type()) && !/status of 401/.test(line.text())) faults.push(line.text());
  });
  page.on("request", (request) => {
    if (new URL(request.url()).origin !== origin) faults.push(`asks for ${request.url()}`);
  });
  page.on("requestfailed", (request) => faults.push(`${request.url()}: ${request.failure()?.errorText}`));
  page.on("response", (response) => {
    if (response.status() >= 400 && response.status() !== 401) faults.push(`${response.url()}: ${response.status()}`);
  });
  await page.evaluateOnNewDocument(() => {
    document.addEventListener("securitypolicyviolation", (event) => console.error(`violates ${event.violatedDirective}`));
  });
  t.after(async () => {
    await context.close();
    assert.deepEqual(faults, []);
  });
  await page.setViewport({ width, height });
  await page.emulateMediaFeatures([
    { name: "prefers-color-scheme", value: scheme },
    { name: "prefers-reduced-motion", value: motion },
  ]);
  await page.goto(origin);
  await page.waitForSelector("[data-scenario]");
  return page;
}

const press = (page: Page, selector: string) => page.locator(selector).click();
const button = (act: string) => `[data-act=${act}]`;

/** Waits until as many exchanges as that are over, and tells of each what was presented, handed out and said. */
async function exchanges(page: Page, count: number): Promise<string[]> {
  await page.waitForFunction(
    (count) => document.querySelectorAll("#exchanges li[data-answered=true]").length === count,
    {},
    count,
  );
  return page.$$eval("#exchanges li", (items) =>
    items.reverse().map((item) => {
      const [presented, handedOut] = [...item.querySelectorAll(".badge")].map((badge) => badge.lastChild?.textContent);
      return `${presented}>${handedOut} ${item.querySelector(".said")?.textContent}`;
    }),
  );
}

const count = (page: Page, selector: string) => page.$$eval(selector, (found) => found.length);
const text = (page: Page, selector: string) => page.$eval(selector, (element) => element.textContent ?? "");
/** A request now is not within a window any more. */
const windowIsOver = (page: Page) =>
  page.waitForFunction(() => /given a new token/.test(document.querySelector("#window")?.textContent ?? ""));
const says = (page: Page, what: RegExp) =>
  page.waitForFunction((what) => new RegExp(what).test(document.querySelector("#status")?.textContent ?? ""), {}, what.source);
/** What the table says of each device. */
const devices = (page: Page) =>
  page.$$eval("#devices tr", (rows) =>
    rows.map((row) => [...row.children].map((cell) => (cell.querySelector(".badge")?.lastChild ?? cell).textContent?.trim())),
  );

async function signedIn(t: TestContext, at = server, look?: Look): Promise<Page> {
  const page = await open(t, at, look);
  await press(page, "#demo");
  assert.deepEqual(await exchanges(page, 1), ["–>1 200"]);
  return page;
}

// They wait for most of the time.
describe("what one can do", { concurrency: 4 }, () => {
  test("one request after the other", async (t) => {
    const page = await signedIn(t);
    await press(page, button("get"));
    assert.deepEqual(await exchanges(page, 2), ["–>1 200", "1>2 200"]);
    await says(page, /^200, with token 2/);
    await windowIsOver(page);
    await press(page, button("get"));
    assert.deepEqual((await exchanges(page, 3)).at(-1), "2>3 200");
    assert.equal(await count(page, ".sheet .token.new:not(.ghost)"), 3);
    assert.deepEqual(await devices(page), [["Device 1", "3", "–", "signed in", "End"]]);
    const description = await text(page, ".sheet desc");
    assert.match(description, /3: GET \/demo\/members_only, with token 2; 200, token 3\.$/);
  });

  test("within the window", async (t) => {
    const page = await signedIn(t, patient);
    for (const [index, act] of ["get", "get", "replay", "lose", "ask"].entries()) {
      await press(page, button(act));
      await exchanges(page, index + 2);
    }
    const [, ...seen] = await exchanges(page, 6);
    assert.deepEqual(seen, ["1>2 200", "2>– 200", "1>– 200", "2>– 200, lost on the way", "2>2 200"]);
    assert.match(await text(page, "#window"), /^Batch window open, \d+\.\d s to go$/);
    assert.equal((await devices(page))[0]![1], "2");
  });

  test("the raw headers are those that the server saw and sent", async (t) => {
    const page = await signedIn(t);
    await press(page, button("get"));
    await exchanges(page, 2);
    await press(page, "#exchanges li:first-child summary");
    const [request, response] = await page.$$eval("#exchanges li:first-child pre", (parts) =>
      parts.map((part) => part.textContent ?? ""),
    );
    const [, presented] = /^access-token: ([\w-]{28})$/m.exec(request!)!;
    const [, handedOut] = /^access-token: ([\w-]{28})$/m.exec(response!)!;
    const [, client] = /^client: ([\w-]{22})$/m.exec(request!)!;
    assert.notEqual(presented, handedOut);
    assert.match(response!, new RegExp(`^client: ${client}$`, "m"));
    assert.match(response!, /^cache-control: no-store$/m);
    assert.match(response!, /\{"data":\{"id":\d+,"uid":"demo-/);
    assert.equal(await count(page, ".sheet .exchange.chosen"), 1);
    // What the page has to say to a terminal works there.
    const command = await text(page, "#curl");
    assert.match(command, new RegExp(`access-token: ${handedOut}'`));
  });

  test("a batch shares a token", async (t) => {
    const page = await signedIn(t, patient);
    await page.locator("#size").fill("7");
    await press(page, button("batch"));
    const [, ...batch] = await exchanges(page, 8);
    assert.deepEqual(batch.sort(), ["1>2 200", ...Array(6).fill("1>– 200")]);
    await says(page, /^7 requests at once with the same token\. One answer carried token 2, 6 were blank\.$/);
    assert.equal(await count(page, ".sheet .batch"), 1);
    assert.match(await text(page, ".sheet svg"), /batch of 7/);
  });

  test("a slow request beside quick ones", async (t) => {
    const page = await signedIn(t, patient);
    await press(page, button("slow"));
    await page.waitForFunction(() => document.querySelectorAll("#exchanges li[data-answered=true]").length === 3);
    assert.equal(await count(page, ".sheet .work.open"), 1, "it is still at work");
    const [, slow, ...quick] = await exchanges(page, 4);
    assert.deepEqual(quick.sort(), ["1>2 200", "1>– 200"]);
    assert.equal(slow, "1>– 200", "its token was superseded long ago, and was good when it began");
    await says(page, /^The slow one: 200, without a new token/);
    assert.equal(await count(page, ".sheet .work.open"), 0);
  });

  test("an old token is refused", async (t) => {
    const page = await signedIn(t);
    await press(page, button("get"));
    await exchanges(page, 2);
    assert.equal(await page.$eval("#old", (select) => (select as HTMLSelectElement).value), "1", "the one before");
    await windowIsOver(page);
    await press(page, button("replay"));
    assert.equal((await exchanges(page, 3)).at(-1), "1>– 401 token_superseded");
    await says(page, /^Refused: token_superseded/);
    assert.equal(await count(page, ".sheet .exchange.refused .cross"), 1);
    await press(page, button("get"));
    assert.equal((await exchanges(page, 4)).at(-1), "2>3 200", "the session goes on");
  });

  test("a lost answer, and a device that asks for the token", async (t) => {
    const page = await signedIn(t, patient);
    await press(page, button("lose"));
    await says(page, /carried token 2 and was lost: Device 1 still holds token 1/);
    assert.equal(await count(page, ".sheet .exchange.lost .cross"), 1);
    assert.equal((await devices(page))[0]![1], "1");
    await press(page, button("ask"));
    assert.deepEqual(await exchanges(page, 3), ["–>1 200", "1>2 200, lost on the way", "1>2 200"]);
    assert.equal((await devices(page))[0]![1], "2");
  });

  test("a lost answer, and a device that does not", async (t) => {
    const page = await signedIn(t);
    await press(page, button("lose"));
    await exchanges(page, 2);
    await windowIsOver(page);
    await press(page, button("get"));
    assert.equal((await exchanges(page, 3)).at(-1), "1>– 401 token_superseded");
  });

  test("a second device ends the first one", async (t) => {
    const page = await signedIn(t);
    await press(page, "#another");
    await says(page, /^Device 2 is signed in as demo-\w+@example.com and holds token 1/);
    assert.equal(await count(page, ".sheet .lines"), 2, "each has its lines");
    await press(page, "#list");
    await says(page, /knows 2 devices/);
    assert.ok((await devices(page)).every(([, , seen]) => seen !== "–"));
    await press(page, "[aria-label='End Device 1']");
    await says(page, /^Device 1 is signed out/);
    assert.equal(await count(page, ".sheet .over"), 1);
    // Only the one that asked is in the list of the server by now.
    assert.deepEqual(
      (await devices(page)).map(([name, , , is]) => `${name}: ${is}`),
      ["Device 1: ended elsewhere", "Device 2 127.0.0.1: signed in"],
    );

    await press(page, "[data-device='1']");
    await press(page, button("get"));
    await says(page, /^Refused: session_revoked/);
    await press(page, "[data-device='2']");
    await press(page, button("get"));
    await says(page, /^200/);
  });

  test("signing out, and what its tokens are worth then", async (t) => {
    const page = await signedIn(t, patient);
    await press(page, button("get"));
    await exchanges(page, 2);
    await press(page, button("signOut"));
    await says(page, /^Device 1 is signed out/);
    await press(page, button("replay"));
    assert.deepEqual((await exchanges(page, 4)).slice(2), ["2>– 200", "1>– 401 session_revoked"]);
    assert.equal((await devices(page))[0]![3], "signed out");
    assert.equal(await count(page, ".sheet .over"), 1);
    await press(page, "#over");
    await says(page, /^Sign in/);
    assert.equal(await count(page, "#exchanges li"), 0);
    assert.equal(await page.evaluate(() => document.activeElement?.id), "demo");
  });

  test("an account of one's own", async (t) => {
    const page = await open(t, server);
    const who = somebody();
    await press(page, "#own summary");
    await page.locator("#email").fill(who.email);
    await page.locator("#password").fill(who.password);
    await press(page, "button[value=signIn]");
    await says(page, /^Refused: bad_credentials/);
    await press(page, "button[value=signUp]");
    await says(page, new RegExp(`^Device 1 is signed up as ${who.email}`));
  });

  for (const scenario of ["sequential", "batch", "replay", "slow", "lost"]) {
    test(`what the picture of "${scenario}" shows is what happens`, async (t) => {
      const recorded = fileURLToPath(new URL(`../../../../docs/diagrams/${scenario}.json`, import.meta.url));
      const { events } = JSON.parse(await readFile(recorded, "utf8")) as {
        events: { type: string; exchange: number; token: number | null; status: number }[];
      };
      const sent = events.filter((event) => event.type === "sent");
      const expected = sent.map(({ exchange, token }) => {
        const answer = events.find((event) => event.type === "received" && event.exchange === exchange)!;
        return `${token ?? "–"}>${answer.token ?? "–"} ${answer.status}`;
      });
      const page = await open(t, stage);
      await press(page, `[data-scenario=${scenario}]`);
      const seen = await exchanges(page, sent.length);
      // Which of several requests that are alike is given the token is up to chance.
      assert.deepEqual(seen.map((line) => line.split(" ").slice(0, 2).join(" ").replace(",", "")).sort(), expected.sort());
      await page.waitForFunction(() => document.querySelector<HTMLElement>("#stop")?.hidden);
      assert.ok(!(await page.$("#status.bad")));
    });
  }

  test("a scenario can be stopped", async (t) => {
    const page = await open(t, patient);
    await press(page, "[data-scenario=sequential]");
    await exchanges(page, 2);
    await press(page, "#stop");
    await says(page, /^Stopped/);
    await press(page, button("get"));
    assert.equal((await exchanges(page, 3)).at(-1), "2>– 200", "one goes on by hand");
  });

  test("it goes by the settings in force", async (t) => {
    const settings = ["on_reuse=revoke", "headers_names.access-token=x-token", "realms.admin.mount=/admin_auth"];
    const [other, baker] = await Promise.all([
      startBaton("batch_request_buffer_throttle=0", ...settings),
      startBaton("cookie_enabled=true"),
    ]);
    t.after(() => Promise.all([other.stop(), baker.stop()]));
    const page = await open(t, other);
    const shown = await page.$$eval("#settings dt", (names) =>
      Object.fromEntries(names.map((name) => [name.textContent, name.nextElementSibling?.textContent])),
    );
    assert.equal(shown["on_reuse"], "revoke");
    assert.equal(shown["batch_request_buffer_throttle"], "0 s");
    assert.equal(shown["headers_names.access-token"], "x-token");
    assert.match(await text(page, "#realms"), /\/demo\/realms\/admin\/members_only/);
    await press(page, "#demo");
    await press(page, button("get"));
    await exchanges(page, 2);
    assert.equal(await count(page, ".sheet .window"), 0);
    await press(page, button("replay"));
    assert.equal((await exchanges(page, 3)).at(-1), "1>– 401 token_superseded");
    assert.equal((await devices(page))[0]![3], "revoked");
    await press(page, button("get"));
    assert.equal((await exchanges(page, 4)).at(-1), "2>– 401 session_revoked");

    const baked = await open(t, baker);
    await press(baked, "#demo");
    await says(baked, /^The token came in a cookie, where no script sees it/);
  });
});

test("everything is within reach of the keyboard", async (t) => {
  const page = await open(t, server);
  const focused = () =>
    page.evaluate(
      () => document.activeElement?.id || document.activeElement?.getAttribute("data-act") || document.activeElement?.tagName,
    );
  const tabTo = async (name: string) => {
    const passed = [];
    for (let steps = 0; steps < 60; steps += 1) {
      await page.keyboard.press("Tab");
      const here = await focused();
      if (here === name) {
        const ring = await page.evaluate(() => getComputedStyle(document.activeElement!).outlineStyle);
        assert.notEqual(ring, "none", `one sees that ${name} has the focus`);
        return;
      }
      passed.push(here);
    }
    assert.fail(`no ${name} among ${passed.join(", ")}`);
  };
  await page.keyboard.press("Tab");
  assert.equal(await text(page, ":focus"), "Skip to the diagram");
  await page.keyboard.press("Enter");
  assert.equal(await focused(), "stage");
  await tabTo("demo");
  await page.keyboard.press("Enter");
  await exchanges(page, 1);
  await page.waitForFunction(() => document.activeElement?.getAttribute("data-act") === "get", {});
  await page.keyboard.press("Space");
  await exchanges(page, 2);
  assert.equal(await focused(), "get", "it stays where it was");
  for (const name of ["batch", "size", "slow", "replay", "old", "lose", "ask", "signOut"]) await tabTo(name);
  await tabTo("SUMMARY");
  await page.keyboard.press("Enter");
  assert.equal(await count(page, "#exchanges details[open]"), 1);
  for (const name of ["devices-table", "list", "copy"]) await tabTo(name);
});

test("nothing moves for those who want it calm", async (t) => {
  const page = await signedIn(t, patient, { motion: "reduce" });
  await page.evaluate(() => {
    const seen = ((window as unknown as { ghosts: number }).ghosts = 0);
    new MutationObserver(() => {
      const here = document.querySelectorAll(".ghost").length;
      (window as unknown as { ghosts: number }).ghosts = Math.max(seen, here);
    }).observe(document.querySelector("#sheet")!, { childList: true, subtree: true });
  });
  await press(page, button("batch"));
  await exchanges(page, 6);
  assert.equal(await page.evaluate(() => (window as unknown as { ghosts: number }).ghosts), 0);
});

test("pages of other people cannot frame it, and it needs nothing from them", async () => {
  const response = await fetch(`${server.origin}/`);
  const policy = response.headers.get("content-security-policy") ?? "";
  assert.match(policy, /^default-src 'none'; .*frame-ancestors 'none'$/);
  assert.doesNotMatch(policy, /unsafe|\*|http/);
});

const axe = await readFile(createRequire(import.meta.url).resolve("axe-core"), "utf8");
/** What a check of its accessibility finds that is serious. */
async function audit(page: Page): Promise<string[]> {
  // By way of the DevTools protocol: no policy of the page has a say in it.
  await page.evaluate(axe);
  return page.evaluate(async () => {
    const { axe } = window as unknown as {
      axe: {
        run(
          options: object,
        ): Promise<{ violations: { id: string; impact: string; nodes: { html: string; failureSummary: string }[] }[] }>;
      };
    };
    const { violations } = await axe.run({ resultTypes: ["violations"], iframes: false });
    return violations
      .filter(({ impact }) => impact === "serious" || impact === "critical")
      .flatMap(({ id, nodes }) => nodes.map(({ html, failureSummary }) => `${id}: ${html}\n${failureSummary}`));
  });
}

describe("its looks", { concurrency: 4 }, () => {
  for (const scheme of ["light", "dark"] as const) {
    for (const [size, width] of [
      ["wide", 1280],
      ["phone", 360],
    ] as const) {
      test(`it looks right, and reads right: ${size}, ${scheme}`, async (t) => {
        const page = await open(t, server, { width, height: size === "wide" ? 800 : 740, scheme });
        assert.deepEqual(await audit(page), [], "before anything has happened");
        await shoot(page, `playground-${size}-${scheme}-0`);
        await press(page, "[data-scenario=replay]");
        await exchanges(page, 5);
        await page.waitForFunction(() => document.querySelector<HTMLElement>("#stop")?.hidden);
        await press(page, "#another");
        await exchanges(page, 6);
        await press(page, button("batch"));
        await exchanges(page, 11);
        await press(page, "#list");
        await exchanges(page, 12);
        await press(page, "[aria-label='End Device 1']");
        await exchanges(page, 13);
        await press(page, "#exchanges li:nth-child(2) summary");
        await page.waitForFunction(() => document.getAnimations().length === 0);
        assert.deepEqual(await audit(page), []);
        assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), width, "it does not scroll sideways");
        await page.evaluate(() => scrollTo(0, 0));
        await shoot(page, `playground-${size}-${scheme}-1`);
      });
    }
  }
});

test("the mailbox reads right", async (t) => {
  const page = await open(t, server);
  await page.goto(`${server.origin}/dev/mailbox?refresh=off`);
  assert.deepEqual(await audit(page), [], "empty");
  const who = somebody();
  const post = (path: string, body: object) =>
    fetch(server.url + path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
  await post("", who);
  await post("/password", { email: who.email, redirect_url: "http://localhost:5173/reset" });
  await linkInLetter(server, who.email);
  for (const [scheme, width] of [
    ["light", 1280],
    ["dark", 360],
  ] as const) {
    await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
    await page.setViewport({ width, height: 740 });
    await page.goto(`${server.origin}/dev/mailbox?refresh=off`);
    assert.deepEqual(await audit(page), [], `the list, ${scheme}`);
    await shoot(page, `mailbox-${scheme}-list`);
    await page.goto(`${server.origin}/dev/mailbox/1`);
    assert.deepEqual(await audit(page), [], `a letter, ${scheme}`);
    await shoot(page, `mailbox-${scheme}-letter`);
  }
});
