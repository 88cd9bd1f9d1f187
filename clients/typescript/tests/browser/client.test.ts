// The client in Chromium, in pages of another origin than the server's.
import assert from "node:assert/strict";
import { after, before, test, type TestContext } from "node:test";
import type { Browser, BrowserContext, Page } from "puppeteer-core";
import { somebody, startBaton, windowPasses, type Server } from "../support/baton.js";
import { load, startBrowser, startPages } from "../support/browser.js";
import { startProxy, type Proxy } from "../support/proxy.js";

const WINDOW = 1;
/** For how long two tabs are busy, in seconds. */
const BUSY = Number(process.env["BUSY_SECONDS"] ?? 8);

let server: Server;
/** One that hands its tokens out in a cookie alone. */
let baker: Server;
let pages: { origin: string; stop: () => Promise<void> };
let browser: Browser;

before(async () => {
  [server, baker, pages, browser] = await Promise.all([
    startBaton(`batch_request_buffer_throttle=${WINDOW}s`),
    startBaton(`batch_request_buffer_throttle=${WINDOW}s`, "cookie_enabled=true"),
    startPages(),
    startBrowser(),
  ]);
});
after(() => Promise.all([browser?.close(), pages?.stop(), server?.stop(), baker?.stop()]));

interface Stage {
  proxy: Proxy;
  context: BrowserContext;
  who: { email: string; password: string };
  /** A tab with a client. */
  tab(): Promise<Page>;
}

/** A browser profile of its own, and a gateway in front of the server. */
async function stage(t: TestContext, storage: "local" | "cookie" = "local", prepare?: () => void): Promise<Stage> {
  const proxy = await startProxy(storage === "cookie" ? baker.origin : server.origin);
  const context = await browser.createBrowserContext();
  t.after(async () => {
    await context.close();
    await proxy.stop();
  });
  // A cookie is for pages of the same site.
  const url = storage === "cookie" ? proxy.url.replace("127.0.0.1", "localhost") : proxy.url;
  const tab = async () => {
    const page = await context.newPage();
    if (prepare) await page.evaluateOnNewDocument(prepare);
    await load(page, pages.origin, { url, storage, batchWindow: WINDOW });
    return page;
  };
  return { proxy, context, who: somebody(), tab };
}

/** A tab in which somebody has registered. */
async function signedUp(t: TestContext, ...rest: [storage?: "local" | "cookie", prepare?: () => void]) {
  const set = await stage(t, ...rest);
  const page = await set.tab();
  await page.evaluate((who) => window.baton.signUp(who).then(() => {}), set.who);
  set.proxy.seen.length = 0;
  return { ...set, page };
}

/** The status of the answer, or the name of the error. */
const get = (page: Page, path = "/demo/members_only", method = "GET") =>
  page.evaluate(
    (path, method) =>
      window.baton.fetch(path, { method }).then(
        (response) => response.status,
        (error: Error) => error.name,
      ),
    path,
    method,
  );
const held = (page: Page) => page.evaluate(() => window.baton.session?.generation);
const heard = (page: Page, event: string) => page.evaluate((event) => window.heard.filter(([name]) => name === event), event);
const restored = (page: Page) => page.evaluate(async () => (await window.baton.restore())?.email);

/** When the gateway has heard the server's answer to such a request. */
function answered(proxy: Proxy, path: string, then = () => {}): Promise<void> {
  return new Promise((resolve) => {
    proxy.answered = (request) => {
      if (request.path !== path) return;
      then();
      resolve();
    };
  });
}

test("one request after the other", async (t) => {
  const { page } = await signedUp(t);
  for (let number = 2; number <= 4; number += 1) {
    assert.equal(await get(page), 200);
    assert.equal(await held(page), number);
    await windowPasses(WINDOW);
  }
});

test("a batch shares a token", async (t) => {
  const { page, proxy } = await signedUp(t);
  for (const number of [2, 3]) {
    const statuses = await page.evaluate(async () => {
      const answers = await Promise.all(Array.from({ length: 12 }, () => window.baton.fetch("/demo/members_only")));
      return answers.map((answer) => answer.status);
    });
    assert.deepEqual(statuses, Array(12).fill(200));
    assert.equal(await held(page), number);
    await windowPasses(WINDOW);
  }
  assert.equal(proxy.seen.filter((request) => request.handedOut).length, 2);
});

for (const [name, prepare] of [
  ["", undefined],
  [
    ", without Web Locks and BroadcastChannel",
    () => {
      Reflect.deleteProperty(Navigator.prototype, "locks");
      Reflect.deleteProperty(window, "BroadcastChannel");
    },
  ],
] as const) {
  test(`two busy tabs stay signed in${name}`, async (t) => {
    const { page, tab, proxy } = await signedUp(t, "local", prepare);
    const other = await tab();
    assert.equal(await page.evaluate(() => "BroadcastChannel" in window && "locks" in navigator), !prepare);
    const busy = (page: Page) =>
      page.evaluate(async (seconds) => {
        const until = Date.now() + seconds * 1000;
        const statuses: Record<string, number> = {};
        const worker = async () => {
          while (Date.now() < until) {
            const { status } = await window.baton.fetch("/demo/members_only");
            statuses[status] = (statuses[status] ?? 0) + 1;
          }
        };
        await Promise.all([worker(), worker(), worker(), worker()]);
        return statuses;
      }, BUSY);
    const statuses = await Promise.all([busy(page), busy(other)]);
    for (const counts of statuses) assert.deepEqual(Object.keys(counts), ["200"]);
    assert.deepEqual([...(await heard(page, "ended")), ...(await heard(other, "ended"))], []);
    const handedOut = proxy.seen.map((request) => request.handedOut).filter(Boolean);
    assert.deepEqual(handedOut, handedOut.map((_, index) => index + 2), "each token is handed out once, in order");
    assert.ok(handedOut.length >= Math.floor(BUSY / (WINDOW * 2)), `it has rotated ${handedOut.length} times`);
    const presented = new Set(proxy.seen.filter((request) => request.status !== 200).map((request) => request.path));
    assert.deepEqual([...presented], []);
    t.diagnostic(`${proxy.seen.length} requests in ${BUSY} s, ${handedOut.length} rotations`);
  });

  test(`tabs hear of each other${name}`, async (t) => {
    const { page, tab, who } = await signedUp(t, "local", prepare);
    const other = await tab();
    assert.equal(await restored(other), who.email);
    await other.evaluate(() => window.baton.signOut());
    await page.waitForFunction(() => window.heard.some(([name]) => name === "signedOut" || name === "ended"));
    assert.equal(await held(page), undefined);
    await other.evaluate((who) => window.baton.signIn(who).then(() => {}), who);
    await page.waitForFunction(() => window.heard.some(([name, what]) => name === "signedIn" && what.elsewhere));
    assert.equal(await get(page), 200);
  });
}

test("a reload in the middle of a request does not sign out", async (t) => {
  const { page, proxy, who } = await signedUp(t);
  // The server has handed out token 2, and the page that asked is gone before it comes.
  const reloaded = new Promise<void>((resolve, reject) => {
    proxy.answered = async (request) => {
      if (request.method === "POST") await load(page, pages.origin, { url: proxy.url }).then(resolve, reject);
    };
  });
  await page.evaluate(() => void window.baton.fetch("/demo/members_only", { method: "POST" }).catch(() => {}));
  await reloaded;
  assert.equal(await held(page), 1, "the token did not arrive");
  assert.equal(await restored(page), who.email);
  assert.equal(await held(page), 2);
  await windowPasses(WINDOW);
  assert.equal(await get(page), 200);
});

test("a tab that is closed in the middle of a request does not sign the other one out", async (t) => {
  const { page, proxy, tab } = await signedUp(t);
  const other = await tab();
  let closed = Promise.resolve();
  const asked = new Promise<void>((resolve) => {
    proxy.answered = async (request) => {
      if (request.method === "POST") await (closed = page.close({ runBeforeUnload: false }));
      else if (request.query.includes("unbatch")) resolve();
    };
  });
  await page.evaluate(() => void window.baton.fetch("/demo/members_only", { method: "POST" }).catch(() => {}));
  await asked;
  await closed;
  await windowPasses(WINDOW);
  assert.equal(await get(other), 200);
  assert.equal(await held(other), 3);
});

test("offline and back", async (t) => {
  const { page, proxy, who } = await signedUp(t);
  await get(page);
  // An order whose answer is lost, and then there is no network to ask for the token.
  proxy.fate = (request) => (request.method === "POST" ? "lose" : "cut");
  assert.equal(await get(page, "/demo/members_only", "POST"), "TypeError");
  await page.setOfflineMode(true);
  assert.equal(await get(page), "TypeError");
  assert.equal(await page.evaluate(() => window.baton.restore().catch((error: { code: string }) => error.code)), "network");
  assert.equal(await held(page), 2);

  proxy.fate = () => "pass";
  const asked = answered(proxy, "/auth/validate_token");
  await page.setOfflineMode(false);
  await asked;
  assert.equal(await get(page), 200);
  assert.equal(await restored(page), who.email);
  assert.deepEqual(await heard(page, "ended"), []);
});

test("a lost response, a server that is away", async (t) => {
  const { page, proxy } = await signedUp(t);
  // Chromium sends it again by itself where it had kept a connection, and the client does where it had not.
  let first = true;
  proxy.fate = () => {
    const fate = first ? "lose" : "pass";
    first = false;
    return fate;
  };
  assert.equal(await get(page), 200);
  await page.waitForFunction(() => window.baton.session?.generation === 2);

  proxy.fate = () => 503;
  assert.equal(await get(page), 503);
  assert.equal(await held(page), 2);
  proxy.fate = () => "pass";
  await windowPasses(WINDOW);
  assert.equal(await get(page), 200);
});

test("the session is ended from another device", async (t) => {
  const { page, tab, who, proxy } = await signedUp(t);
  const beside = await tab();
  const device = await browser.createBrowserContext();
  t.after(() => device.close());
  const there = await device.newPage();
  await load(there, pages.origin, { url: proxy.url });
  await there.evaluate(async (who) => {
    await window.baton.signIn(who);
    const others = (await window.baton.devices()).filter((device) => !device.current);
    await Promise.all(others.map((device) => window.baton.endDevice(device.id)));
  }, who);
  assert.equal(await get(page), 401);
  const [, what] = (await heard(page, "ended"))[0] ?? [];
  assert.deepEqual([what?.code, what?.elsewhere], ["session_revoked", false]);
  await beside.waitForFunction(() => window.heard.some(([name, what]) => name === "ended" && what.elsewhere));
  assert.equal(await get(there), 200);
});

test("with a cookie no script sees a token", async (t) => {
  const { page, proxy, tab, who } = await signedUp(t, "cookie");
  const answer = await page.evaluate(async () => {
    const response = await window.baton.fetch("/demo/members_only");
    return [response.status, response.headers.get("access-token"), document.cookie, JSON.stringify({ ...localStorage })];
  });
  assert.deepEqual(answer, [200, "", "", "{}"]);
  assert.equal(await held(page), 0);

  // A lost response, and a tab that only the cookie tells of a session.
  await windowPasses(WINDOW);
  let first = true;
  proxy.fate = () => {
    const fate = first ? "lose" : "pass";
    first = false;
    return fate;
  };
  const asked = new Promise<void>((resolve) => {
    proxy.answered = (request) => {
      if (request.query.includes("unbatch")) resolve();
    };
  });
  assert.equal(await get(page), 200);
  await asked;
  await windowPasses(WINDOW);
  const other = await tab();
  assert.equal(await held(other), undefined);
  assert.equal(await restored(other), who.email);
  await windowPasses(WINDOW);
  assert.deepEqual(await Promise.all([get(page), get(other), get(page)]), [200, 200, 200]);

  await other.evaluate(() => window.baton.signOut());
  await page.waitForFunction(() => window.heard.some(([name, what]) => name === "signedOut" && what.elsewhere));
  assert.equal(await get(page), 401);
  assert.equal(await restored(page), undefined);
});
