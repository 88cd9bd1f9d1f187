// Two tabs, which is two clients that share a storage.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Baton, type Session, type Storage } from "baton-client";
import { somebody, startBaton, windowPasses, type Server } from "../support/baton.js";

let server: Server;
before(async () => {
  server = await startBaton("batch_request_buffer_throttle=200ms");
});
after(() => server?.stop());

let names = 0;

/** As `localStorage` does it: what is kept is a copy. */
function sharedStorage(): Storage {
  let kept = "null";
  names += 1;
  return {
    shared: `tabs ${names}`,
    read: () => JSON.parse(kept) as Session | null,
    write: (session) => {
      kept = JSON.stringify(session);
    },
  };
}

function tabs(): [Baton, Baton] {
  const storage = sharedStorage();
  return [new Baton({ url: server.url, storage }), new Baton({ url: server.url, storage })];
}

/** The next event of this kind. */
function next<E extends "signedIn" | "signedOut" | "ended">(baton: Baton, event: E): Promise<unknown> {
  return new Promise((resolve) => {
    const off = baton.on(event, (what) => {
      off();
      resolve(what);
    });
  });
}

test("two busy tabs rotate the token and neither is signed out", async (t) => {
  const pair = tabs();
  t.after(() => pair.forEach((tab) => tab.close()));
  await pair[0].signUp(somebody());
  const ended: unknown[] = [];
  for (const tab of pair) tab.on("ended", (event) => ended.push(event));
  const until = Date.now() + 3_000;
  const statuses = new Map<number, number>();
  const busy = async (tab: Baton) => {
    while (Date.now() < until) {
      const status = (await tab.fetch("/demo/members_only")).status;
      statuses.set(status, (statuses.get(status) ?? 0) + 1);
    }
  };
  await Promise.all(pair.flatMap((tab) => [busy(tab), busy(tab), busy(tab)]));
  assert.deepEqual([...statuses.keys()], [200]);
  assert.deepEqual(ended, []);
  const rotations = pair[0].session?.generation ?? 0;
  t.diagnostic(`${statuses.get(200)} requests, generation ${rotations}`);
  assert.ok(rotations > 3, `it has rotated: ${rotations}`);
  assert.equal(pair[1].session?.generation, rotations);
});

test("a tab that was idle goes on with the token of the busy one", async (t) => {
  const pair = tabs();
  t.after(() => pair.forEach((tab) => tab.close()));
  await pair[0].signUp(somebody());
  assert.equal((await pair[1].fetch("/demo/members_only")).status, 200);
  for (let number = 0; number < 3; number += 1) {
    await windowPasses(0.2);
    await pair[0].fetch("/demo/members_only");
  }
  await windowPasses(0.2);
  assert.equal((await pair[1].fetch("/demo/members_only")).status, 200);
});

test("who signs in or out in one tab does so in the other", async (t) => {
  const pair = tabs();
  t.after(() => pair.forEach((tab) => tab.close()));
  const who = somebody();
  const signedIn = next(pair[1], "signedIn");
  await pair[0].signUp(who);
  assert.deepEqual(await signedIn, { uid: who.email, elsewhere: true });
  assert.equal(pair[1].session?.client, pair[0].session?.client);

  const signedOut = next(pair[0], "signedOut");
  await pair[1].signOut();
  assert.deepEqual(await signedOut, { uid: who.email, elsewhere: true });
  assert.equal(pair[0].session, null);
});

test("a session that ended is told once in each tab", async (t) => {
  const pair = tabs();
  t.after(() => pair.forEach((tab) => tab.close()));
  const who = somebody();
  await pair[0].signUp(who);
  const heard: [unknown[], unknown[]] = [[], []];
  pair.forEach((tab, index) => tab.on("ended", ({ code, elsewhere }) => heard[index as 0 | 1].push([code, elsewhere])));
  const both = Promise.all(pair.map((tab) => next(tab, "ended")));
  const device = new Baton({ url: server.url });
  await device.signIn(who);
  await device.endDevice(pair[0].session?.client ?? "");
  await Promise.all(pair.map((tab) => tab.fetch("/demo/members_only")));
  await both;
  // What else is on the line arrives before this does.
  const later = next(pair[1], "signedIn");
  await pair[0].signIn(who);
  await later;
  assert.deepEqual(heard.map((events) => events.length), [1, 1]);
  assert.deepEqual(heard.flat().map((event) => (event as unknown[])[0]), ["session_revoked", "session_revoked"]);
});
