// Responses that get lost, servers that are away, and refusals that come too late, with a gateway in between.
import assert from "node:assert/strict";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { after, before, beforeEach, test } from "node:test";
import { Baton } from "baton-client";
import { somebody, startBaton, windowPasses, type Server } from "../support/baton.js";
import { startProxy, type Fate, type Proxy, type Seen } from "../support/proxy.js";

const WINDOW = 1;
let server: Server;
let proxy: Proxy;
let baton: Baton;
let ended: unknown[];

before(async () => {
  server = await startBaton(`batch_request_buffer_throttle=${WINDOW}s`);
});
after(() => server?.stop());

beforeEach(async (context) => {
  proxy = await startProxy(server.origin);
  (context as { after?: (done: () => Promise<void>) => void }).after?.(() => proxy.stop());
  baton = new Baton({ url: proxy.url });
  await baton.signUp(somebody());
  ended = [];
  baton.on("ended", (event) => ended.push(event));
  proxy.seen.length = 0;
});

const held = () => baton.session?.generation;
const members = () => baton.fetch("/demo/members_only");

/** Does this to the first request of this kind, and lets all others pass. */
function once(fate: Fate, method = "GET"): void {
  let done = false;
  proxy.fate = (request) => {
    if (done || request.method !== method) return "pass";
    done = true;
    return fate;
  };
}

/** When the token has been asked for again: `restore` shares the request that is under way or makes one. */
async function isStillSignedIn(): Promise<void> {
  await windowPasses(WINDOW);
  assert.equal((await members()).status, 200);
  assert.notEqual(await baton.restore(), null);
  assert.deepEqual(ended, []);
}

/** The answer to the request that asks for the token again. */
function askedAgain(): Promise<Seen> {
  return new Promise((resolve) => {
    proxy.answered = (request) => {
      if (request.path === "/auth/validate_token" && request.query.includes("unbatch=true")) resolve(request);
    };
  });
}

test("a GET whose response was lost is sent once more and brings the token", async () => {
  once("lose");
  const answer = await baton.fetch("/demo/members_only?page=2");
  assert.equal(answer.status, 200);
  assert.deepEqual(
    proxy.seen.map(({ query, presented, handedOut }) => [query, presented, handedOut]),
    [["?page=2", 1, 2], ["?page=2&unbatch=true", 1, 2]],
  );
  assert.equal(held(), 2);
  await isStillSignedIn();
});

test("each GET of a batch whose responses were lost succeeds", async () => {
  proxy.fate = (request) => (request.query ? "pass" : "lose");
  const answers = await Promise.all(Array.from({ length: 6 }, members));
  assert.deepEqual(answers.map((answer) => answer.status), Array(6).fill(200));
  assert.equal(proxy.seen.length, 12);
  assert.equal(held(), 2);
  proxy.fate = () => "pass";
  await isStillSignedIn();
});

test("a POST whose response was lost is not sent twice, and the token is asked for", async () => {
  once("lose", "POST");
  const asked = askedAgain();
  await assert.rejects(baton.fetch("/demo/members_only", { method: "POST", body: "an order" }), TypeError);
  assert.equal((await asked).handedOut, 2);
  assert.deepEqual(proxy.seen.map((request) => request.method), ["POST", "GET"]);
  await isStillSignedIn();
});

test("a request that was given up does not cost the session", async () => {
  const control = new AbortController();
  const asked = askedAgain();
  proxy.answered = ((tell) => (request: Seen) => {
    // The server has handed the token out, and nobody is there any more to take it.
    if (request.path === "/demo/members_only") control.abort();
    return tell(request);
  })(proxy.answered);
  await assert.rejects(baton.fetch("/demo/members_only", { signal: control.signal }), { name: "AbortError" });
  assert.equal((await asked).handedOut, 2);
  await isStillSignedIn();
});

test("a request that was given up before it was sent is not sent", async () => {
  await assert.rejects(baton.fetch("/demo/members_only", { signal: AbortSignal.abort() }), { name: "AbortError" });
  assert.deepEqual(proxy.seen, []);
});

test("a gateway that lost the server's answer does not cost the session", async () => {
  once({ instead: 502 });
  const asked = askedAgain();
  assert.equal((await members()).status, 502);
  assert.equal((await asked).handedOut, 2);
  await isStillSignedIn();
});

test("a server that is away ends nothing, whatever says so", async () => {
  for (const fate of [503, 500, "cut"] as const) {
    proxy.fate = () => fate;
    if (fate === "cut") await assert.rejects(members(), TypeError);
    else assert.equal((await members()).status, fate);
    await assert.rejects(baton.restore(), { code: fate === "cut" ? "network" : "unknown" });
    assert.notEqual(baton.session, null);
  }
  proxy.fate = () => "pass";
  await isStillSignedIn();
});

test("while the server is away a request does not cause several", async () => {
  proxy.fate = () => 503;
  for (let number = 0; number < 10; number += 1) await members();
  assert.ok(proxy.seen.length <= 11, `${proxy.seen.length} requests`);
});

test("a token that went astray in a redirect is asked for", async () => {
  once({ instead: 307, headers: { location: "/demo/status?code=200" }, keep: true });
  const asked = askedAgain();
  const answer = await members();
  assert.equal(new URL(answer.url).pathname, "/demo/status");
  assert.equal((await asked).handedOut, 2);
  await isStillSignedIn();
});

test("a redirect to another origin does not take the credentials along", async () => {
  const heads: string[] = [];
  const stranger = createServer((request, response) => {
    heads.push(JSON.stringify(request.headers));
    // It would like its own token to be taken.
    response.writeHead(200, { "access-token": "EAAAAP-B3oi72XoTFpVBIb8VvcLY", client: baton.session?.client ?? "" }).end();
  });
  await new Promise<void>((resolve) => stranger.listen(0, "127.0.0.1", resolve));
  try {
    const elsewhere = `http://127.0.0.1:${(stranger.address() as AddressInfo).port}/`;
    once({ instead: 302, headers: { location: elsewhere }, keep: true });
    const asked = askedAgain();
    assert.equal((await members()).status, 200);
    await asked;
    assert.equal((await baton.fetch(elsewhere)).status, 200);
    assert.equal(heads.length, 2);
    for (const head of heads) assert.doesNotMatch(head, /authorization|access-token|Bearer/i);
    await isStillSignedIn();
    assert.ok((held() ?? 0) < 10, "a stranger's token was not taken");
  } finally {
    stranger.close();
    stranger.closeAllConnections();
  }
});

test("a token that was superseded while its request waited is no end: the request is sent with the new one", async () => {
  let release = () => {};
  const held = new Promise<void>((resolve) => (release = resolve));
  proxy.fate = async (request): Promise<Fate> => {
    if (request.method === "PUT" && request.presented === 1) await held;
    return "pass";
  };
  const late = baton.fetch("/demo/members_only", { method: "PUT", body: "once" });
  assert.equal((await members()).status, 200);
  await windowPasses(WINDOW);
  release();
  assert.equal((await late).status, 200);
  assert.deepEqual(
    proxy.seen.filter((request) => request.method === "PUT").map(({ presented, status }) => [presented, status]),
    [[1, 401], [2, 200]],
  );
  assert.deepEqual(ended, []);
});

test("a refusal waits for the answer that brings the successor", async () => {
  // The answer with token 2 is held back; meanwhile token 1 is refused.
  let release = () => {};
  const released = new Promise<void>((resolve) => (release = resolve));
  let refused = () => {};
  const isRefused = new Promise<void>((resolve) => (refused = resolve));
  let handedOut = () => {};
  const isHandedOut = new Promise<void>((resolve) => (handedOut = resolve));
  proxy.answered = async (request) => {
    if (request.handedOut === 2) {
      handedOut();
      await released;
    }
    if (request.status === 401) refused();
  };
  const first = members();
  await isHandedOut;
  await windowPasses(WINDOW);
  const second = members();
  await isRefused;
  release();
  assert.deepEqual([(await first).status, (await second).status], [200, 200]);
  assert.deepEqual(ended, []);
});

test("a superseded token without a successor here ends the session", async () => {
  // The answer is lost, and so is everything else until the window has passed.
  proxy.fate = () => "lose";
  await assert.rejects(members(), TypeError);
  await windowPasses(WINDOW);
  proxy.fate = () => "pass";
  const answer = await members();
  assert.equal(answer.status, 401);
  assert.deepEqual(ended, [{ uid: (ended[0] as { uid: string }).uid, code: "token_superseded", elsewhere: false }]);
  assert.equal(baton.session, null);
});

test("a 401 that is not about the token ends nothing, one that does not say is looked into", async () => {
  once({ instead: 401 });
  assert.equal((await members()).status, 401);
  assert.notEqual(baton.session, null);
  assert.equal(proxy.seen.at(-1)?.path, "/auth/validate_token");

  // A gateway that answers in its own words for a session that is over.
  const session = baton.session;
  assert.ok(session);
  await baton.fetch(`/auth/sessions/${session.client}`, { method: "DELETE" });
  once({ instead: 401 });
  await members();
  assert.equal(baton.session, null);
  assert.deepEqual(ended.map((event) => (event as { code: string }).code), ["session_revoked"]);
});
