// Orders of events that a real network seldom has, with a server that answers when the test says so.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Baton, generation, localStorageStorage, type Session, type Storage } from "baton-client";

const CLIENT = "AAECAwQFBgcICQoLDA0ODw";

/** Token `number` of a session; what follows the number is not looked at. */
function token(number: number): string {
  const bytes = Buffer.alloc(21, 7);
  bytes[0] = 0x10;
  bytes.writeUInt32BE(number, 1);
  return bytes.toString("base64url");
}

interface Asked {
  url: URL;
  method: string;
  presented: number;
  /** Answers it. */
  answer(number: number | "blank" | "none", status?: number, body?: object): void;
  /** Has it fail as it does without a network. */
  fail(): void;
}

/** A server that a test plays. */
function server() {
  const waiting: ((asked: Asked) => void)[] = [];
  const queue: Asked[] = [];
  const fetch = (input: RequestInfo | URL, init?: RequestInit) =>
    new Promise<Response>((resolve, reject) => {
      const request = new Request(input, init);
      const encoded = request.headers.get("authorization")?.slice("Bearer ".length);
      const fields = encoded ? (JSON.parse(Buffer.from(encoded, "base64").toString()) as Record<string, string>) : {};
      const asked: Asked = {
        url: new URL(request.url),
        method: request.method,
        presented: generation(fields["access-token"] ?? ""),
        answer(number, status = 200, body = {}) {
          const headers = new Headers({ "content-type": "application/json" });
          if (number !== "none") {
            headers.set("access-token", number === "blank" ? "" : token(number));
            headers.set("client", CLIENT);
            headers.set("expiry", number === "blank" ? "" : "2000000000");
            headers.set("uid", "ann@example.com");
          }
          resolve(new Response(JSON.stringify(body), { status, headers }));
        },
        fail: () => reject(new TypeError("fetch failed")),
      };
      const waits = waiting.shift();
      if (waits) waits(asked);
      else queue.push(asked);
    });
  /** The next request that comes. */
  const next = () =>
    new Promise<Asked>((resolve) => {
      const asked = queue.shift();
      if (asked) resolve(asked);
      else waiting.push(resolve);
    });
  return { fetch, next, queue };
}

function storage(number: number): Storage & { kept: Session | null } {
  return {
    shared: "",
    kept: { client: CLIENT, uid: "ann@example.com", token: token(number), expiry: 1 },
    read() {
      return this.kept;
    },
    write(session) {
      this.kept = session;
    },
  };
}

function client(number = 1) {
  const { fetch, next, queue } = server();
  const kept = storage(number);
  return { baton: new Baton({ url: "https://api.test/auth", storage: kept, fetch, batchWindow: 60 }), next, queue, kept };
}

const held = (baton: Baton) => baton.session?.generation;

test("generations are read as the server writes them", () => {
  assert.equal(generation("EAAAAAE5dk1lK2BCP3j8QFhCkfud"), 1);
  assert.equal(generation("EAAAAP-B3oi72XoTFpVBIb8VvcLY"), 255);
  assert.equal(generation("EAAAAQCowLdIGwEwoyo7ivWv3gWA"), 256);
  assert.equal(generation(token(2 ** 32 - 1)), 2 ** 32 - 1);
  for (const nothing of ["", " ", "undefined", "null", "EAAAAAE5dk1lK2BCP3j8QFhCkfu", "EAAAAAE5dk1lK2BCP3j8QFhCkf=="]) {
    assert.equal(generation(nothing), 0, nothing);
  }
});

test("an answer that was overtaken does not bring an older token back", async () => {
  const { baton, next } = client(1);
  const calls = [baton.fetch("/a"), baton.fetch("/b"), baton.fetch("/c")];
  const asked = [await next(), await next(), await next()];
  asked[1]?.answer(3);
  await calls[1];
  asked[0]?.answer(2);
  await calls[0];
  assert.equal(held(baton), 3);
  asked[2]?.answer("blank");
  await calls[2];
  assert.equal(held(baton), 3);
});

test("an answer to the session before does not touch the one of now", async () => {
  const { baton, next, kept } = client(1);
  const call = baton.fetch("/a");
  const asked = await next();
  kept.kept = { client: "a new one", uid: "bob@example.com", token: token(1), expiry: 1 };
  asked.answer(2);
  await call;
  assert.deepEqual([baton.session?.client, held(baton)], ["a new one", 1]);
});

test("a refusal of the session before does not end the one of now, and is not sent again for somebody else", async () => {
  const { baton, next, kept, queue } = client(1);
  const call = baton.fetch("/a", { method: "POST", body: "an order" });
  const asked = await next();
  kept.kept = { client: "a new one", uid: "bob@example.com", token: token(5), expiry: 1 };
  asked.answer("none", 401, { code: "session_revoked" });
  assert.equal((await call).status, 401);
  assert.equal(baton.session?.client, "a new one");
  assert.deepEqual(queue, []);
});

test("a 401 of the application's own, with a good token, is the application's affair", async () => {
  const { baton, next, queue } = client(1);
  const call = baton.fetch("/pin", { method: "POST", body: "1234" });
  (await next()).answer(2, 401, { error: "wrong pin" });
  assert.equal((await call).status, 401);
  assert.equal(held(baton), 2);
  assert.deepEqual(queue, [], "it was handled, and is not sent again");
});

test("codes that are not about the token end nothing", async () => {
  const { baton, next } = client(1);
  const ended: unknown[] = [];
  baton.on("ended", (event) => ended.push(event));
  for (const code of ["bad_credentials", "link_invalid", "unconfirmed"]) {
    const call = baton.fetch("/a");
    (await next()).answer("none", 401, { code });
    await call;
  }
  assert.equal(held(baton), 1);
  assert.deepEqual(ended, []);
});

test("each code that is about the token ends the session once", async () => {
  for (const code of ["token_superseded", "token_expired", "session_revoked", "token_invalid"]) {
    const { baton, next } = client(1);
    const ended: string[] = [];
    baton.on("ended", (event) => ended.push(event.code));
    const calls = [baton.fetch("/a"), baton.fetch("/b")];
    for (const asked of [await next(), await next()]) asked.answer("none", 401, { code });
    await Promise.all(calls);
    assert.deepEqual(ended, [code]);
    assert.equal(baton.session, null);
  }
});

test("a body that can be read once is not sent again", async () => {
  const { baton, next, kept, queue } = client(1);
  const body = new ReadableStream({
    start(control) {
      control.enqueue(new TextEncoder().encode("an order"));
      control.close();
    },
  });
  const call = baton.fetch("/a", { method: "POST", body, duplex: "half" } as RequestInit);
  const asked = await next();
  kept.kept = { client: CLIENT, uid: "ann@example.com", token: token(2), expiry: 1 };
  asked.answer("none", 401, { code: "token_superseded" });
  assert.equal((await call).status, 401);
  assert.deepEqual([held(baton), queue.length], [2, 0]);
});

test("while an answer is missing, requests ask for the token, with the rest of the address as it was", async () => {
  const { baton, next } = client(1);
  const order = baton.fetch("/orders", { method: "POST", body: "x" });
  (await next()).fail();
  await assert.rejects(order, TypeError);
  const asks = await next();
  assert.equal(asks.url.href, "https://api.test/auth/validate_token?unbatch=true");
  asks.fail();

  const call = baton.fetch("/a?q=a%20b+c&tag=x#part");
  const asked = await next();
  assert.equal(asked.url.href, "https://api.test/a?q=a%20b+c&tag=x&unbatch=true#part");
  asked.answer(2);
  await call;
  const after = baton.fetch("/a");
  const plain = await next();
  assert.equal(plain.url.href, "https://api.test/a");
  plain.answer("blank");
  await after;
});

test("a token that an earlier request brought does not settle what a later one lost", async () => {
  const { baton, next, kept } = client(1);
  const slow = baton.fetch("/slow");
  const asked = await next();
  kept.kept = { client: CLIENT, uid: "ann@example.com", token: token(2), expiry: 1 };
  const lost = baton.fetch("/orders", { method: "POST", body: "x" });
  (await next()).fail();
  await assert.rejects(lost);
  (await next()).fail();
  // The slow one, from before, brings the token that is held anyway.
  asked.answer(2);
  await slow;
  const call = baton.fetch("/a");
  const asks = await next();
  assert.equal(asks.url.search, "?unbatch=true");
  asks.answer(3);
  await call;
  assert.equal(held(baton), 3);
});

test("a blank answer that should have brought a token is looked into, unless another one has brought it", async () => {
  const { baton, next, queue } = client(1);
  const alone = baton.fetch("/a");
  (await next()).answer("blank");
  await alone;
  const asks = await next();
  assert.equal(asks.url.href, "https://api.test/auth/validate_token?unbatch=true");
  asks.answer(2);
  await new Promise((resolve) => baton.on("token", resolve));

  const within = baton.fetch("/a");
  (await next()).answer("blank");
  await within;
  assert.deepEqual(queue, [], "the window is open");

  const other = client(1);
  const batch = [other.baton.fetch("/a"), other.baton.fetch("/b")];
  const [first, second] = [await other.next(), await other.next()];
  first.answer("blank");
  await batch[0];
  second.answer(2);
  await batch[1];
  assert.deepEqual(other.queue, []);
});

test("several that ask who is signed in after a loss share a request", async () => {
  const { baton, next, queue } = client(1);
  const calls = [1, 2, 3].map(() => baton.fetch("/orders", { method: "POST", body: "x" }).catch(() => "lost"));
  for (const asked of [await next(), await next(), await next()]) asked.fail();
  assert.deepEqual(await Promise.all(calls), ["lost", "lost", "lost"]);
  const asked = await next();
  assert.equal(asked.url.pathname, "/auth/validate_token");
  assert.deepEqual(queue, []);
  asked.answer(2);
});

test("when the network comes back, the token is asked for again, also if an attempt is about to fail", async (t) => {
  const listeners = new Map<string, EventListener>();
  const listen = (name: string, listener: EventListener) => void listeners.set(name, listener);
  Object.assign(globalThis, { addEventListener: listen });
  t.after(() => Object.assign(globalThis, { addEventListener: undefined }));
  const { baton, next, queue } = client(1);
  const lost = baton.fetch("/orders", { method: "POST", body: "x" });
  (await next()).fail();
  await assert.rejects(lost);
  const doomed = await next();
  listeners.get("online")?.(new Event("online"));
  assert.deepEqual(queue, []);
  doomed.fail();
  const asks = await next();
  assert.equal(asks.url.pathname, "/auth/validate_token");
  asks.answer(2);
  await new Promise((resolve) => baton.on("token", resolve));
  assert.equal(held(baton), 2);
});

test("requests to other origins carry nothing", async () => {
  const { baton, next } = client(1);
  for (const url of ["https://elsewhere.test/a", "http://api.test/a", "https://api.test:8443/a", "//api.test.evil.test/"]) {
    const call = baton.fetch(url);
    const asked = await next();
    assert.equal(asked.presented, 0, url);
    asked.answer(9);
    await call;
    assert.equal(held(baton), 1, url);
  }
});

test("a request object is sent as it is, and again with its body", async () => {
  const { baton, next, kept } = client(1);
  const call = baton.fetch(new Request("https://api.test/a", { method: "PUT", body: "once" }));
  (await next()).answer("none", 401, { code: "token_superseded" });
  // Nothing newer: it ends.
  assert.equal((await call).status, 401);
  kept.kept = { client: CLIENT, uid: "ann@example.com", token: token(1), expiry: 1 };
  const again = baton.fetch(new Request("https://api.test/a", { method: "PUT", body: "once" }));
  const asked = await next();
  kept.kept = { client: CLIENT, uid: "ann@example.com", token: token(2), expiry: 1 };
  asked.answer("none", 401, { code: "token_superseded" });
  const second = await next();
  assert.deepEqual([second.method, second.presented], ["PUT", 2]);
  second.answer("blank");
  assert.equal((await again).status, 200);
});

test("the client shows its secret to nobody", async () => {
  const { baton } = client(1);
  const { inspect } = await import("node:util");
  const shown = inspect(baton, { depth: 9, showHidden: true }) + JSON.stringify(baton) + JSON.stringify(baton.session);
  assert.doesNotMatch(shown, new RegExp(token(1)));
});

test("without localStorage, or with a full one, the session is in memory", () => {
  assert.equal(localStorageStorage("x").shared, "");
  const global = globalThis as { localStorage?: unknown };
  const before = Object.getOwnPropertyDescriptor(globalThis, "localStorage");
  const full = {
    getItem: () => null,
    removeItem: () => {},
    setItem: () => {
      throw new Error("QuotaExceededError");
    },
  };
  Object.defineProperty(globalThis, "localStorage", { value: full, configurable: true });
  try {
    const baton = new Baton({ url: "https://api.test/auth", storage: "local", fetch: () => Promise.reject(new Error()) });
    baton.land(`https://app.test/?reset_password=true&token=${token(1)}&client_id=${CLIENT}&uid=ann@example.com`);
    assert.equal(baton.session?.uid, "ann@example.com");
    baton.close();
  } finally {
    if (before) Object.defineProperty(globalThis, "localStorage", before);
    else delete global.localStorage;
  }
});

test("a listener that throws does not keep the others from hearing", async (t) => {
  const { baton, next } = client(1);
  const heard: number[] = [];
  const later = t.mock.method(globalThis, "queueMicrotask", () => {});
  baton.on("token", () => {
    throw new Error("mine");
  });
  const off = baton.on("token", ({ generation }) => heard.push(generation));
  const call = baton.fetch("/a");
  (await next()).answer(2);
  await call;
  off();
  assert.deepEqual(heard, [2]);
  const thrown = later.mock.calls.map((call) => call.arguments[0] as () => void);
  assert.throws(() => thrown.forEach((rethrow) => rethrow()), /mine/, "whoever watches for errors hears of it");
});
