// What the protocol says, against a real server.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Baton, BatonError } from "baton-client";
import { linkInLetter, somebody, startBaton, windowPasses, type Server } from "../support/baton.js";

let server: Server;
/** Each of its requests rotates. */
let strict: Server;

before(async () => {
  [server, strict] = await Promise.all([
    startBaton("batch_request_buffer_throttle=1s"),
    startBaton("batch_request_buffer_throttle=0", "require_client_password_reset_token=true", "reconfirmable=false"),
  ]);
});
after(() => Promise.all([server?.stop(), strict?.stop()]));

/** A client whose user has just registered. */
async function signedUp(at: Server, who = somebody()): Promise<{ baton: Baton; who: { email: string; password: string } }> {
  const baton = new Baton({ url: at.url, serial: at === strict });
  const { signedIn } = await baton.signUp(who);
  assert.ok(signedIn);
  return { baton, who };
}

const held = (baton: Baton) => baton.session?.generation;

test("the token changes with each of several requests in turn", async () => {
  const { baton } = await signedUp(strict);
  for (let number = 1; number <= 6; number += 1) {
    assert.equal(held(baton), number);
    assert.equal((await baton.fetch("/demo/members_only")).status, 200);
  }
});

test("a batch shares a token, and the next batch has the next one", async () => {
  const { baton } = await signedUp(server);
  for (const number of [2, 3]) {
    const answers = await Promise.all(Array.from({ length: 10 }, () => baton.fetch("/demo/members_only")));
    assert.deepEqual(new Set(answers.map((answer) => answer.status)), new Set([200]));
    assert.equal(answers.filter((answer) => answer.headers.get("access-token")).length, 1);
    assert.equal(held(baton), number);
    await windowPasses(1);
  }
});

test("one at a time, requests that start together succeed without a batch window", async () => {
  const { baton } = await signedUp(strict);
  const answers = await Promise.all(Array.from({ length: 8 }, () => baton.fetch("/demo/members_only")));
  assert.deepEqual(answers.map((answer) => answer.status), Array(8).fill(200));
  assert.equal(held(baton), 9);
});

test("a slow request beside quick ones costs nothing", async () => {
  const { baton } = await signedUp(server);
  const slow = baton.fetch("/demo/slow?ms=2500");
  await baton.fetch("/demo/members_only");
  await windowPasses(1);
  await baton.fetch("/demo/members_only");
  assert.equal((await slow).status, 200);
  assert.equal(held(baton), 3, "the slow answer brought none");
  assert.equal((await baton.fetch("/demo/members_only")).status, 200);
});

test("whoever signs out is out, and doing it twice is no error", async () => {
  const { baton, who } = await signedUp(server);
  const events: string[] = [];
  baton.on("signedOut", ({ uid, elsewhere }) => events.push(`${uid} ${elsewhere}`));
  await baton.signOut();
  assert.equal(baton.session, null);
  assert.equal((await baton.fetch("/demo/members_only")).status, 401);
  await baton.signOut();
  assert.deepEqual(events, [`${who.email} false`]);
  assert.equal((await baton.signIn(who)).email, who.email);
  assert.equal((await baton.restore())?.email, who.email);
});

test("a wrong password and a form with faults say what is wrong", async () => {
  const { baton, who } = await signedUp(server);
  await assert.rejects(baton.signIn({ ...who, password: "not this one" }), (error: BatonError) => {
    assert.ok(error instanceof BatonError);
    assert.deepEqual([error.status, error.code, error.errors.length], [401, "bad_credentials", 1]);
    return true;
  });
  assert.notEqual(baton.session, null, "somebody else's wrong password ends nothing");
  await assert.rejects(baton.signUp({ email: "nobody", password: "x" }), (error: BatonError) => {
    assert.equal(error.status, 422);
    assert.deepEqual(Object.keys(error.fields).sort(), ["email", "password"]);
    assert.ok(error.errors.length >= 2);
    return true;
  });
});

test("a session that was ended from another device ends here, and says so", async () => {
  const { baton: here, who } = await signedUp(server);
  const there = new Baton({ url: server.url });
  await there.signIn(who);
  const devices = await there.devices();
  assert.equal(devices.length, 2);
  assert.equal(devices.find((device) => device.current)?.id, there.session?.client);

  const ended: unknown[] = [];
  here.on("ended", (event) => ended.push(event));
  assert.ok(here.session);
  await there.endDevice(here.session.client);
  assert.equal((await here.fetch("/demo/members_only")).status, 401);
  assert.equal(here.session, null);
  assert.deepEqual(ended, [{ uid: who.email, code: "session_revoked", elsewhere: false }]);
  assert.equal(await here.restore(), null);

  assert.ok(there.session);
  await there.endDevice(there.session.client);
  assert.equal(there.session, null);
});

test("answers of every status carry the session on", async () => {
  const { baton } = await signedUp(strict);
  for (const code of [404, 422, 500, 204]) {
    assert.equal((await baton.fetch(`/demo/status?code=${code}`)).status, code);
  }
  assert.equal(held(baton), 5);
});

test("an account can be changed, renamed and deleted", async () => {
  const { baton, who } = await signedUp(strict);
  assert.equal((await baton.updateAccount({ name: "Ann" }))["name"], "Ann");
  const email = `new-${who.email}`;
  assert.equal((await baton.updateAccount({ email })).uid, email);
  assert.equal(baton.session?.uid, email);
  assert.equal((await baton.restore())?.email, email);
  await baton.deleteAccount();
  assert.equal(baton.session, null);
  await assert.rejects(baton.signIn({ ...who, email }), { code: "bad_credentials" });
});

test("the name of an account may hold any letter", async () => {
  const who = { ...somebody(), email: `zoë.ñandú-${process.pid}@example.com` };
  const { baton } = await signedUp(server, who);
  assert.equal(baton.session?.uid, who.email);
  assert.equal((await baton.fetch("/demo/members_only")).status, 200);
  const withOwn = await baton.fetch("/demo/members_only", { headers: { authorization: "Basic eDp5" } });
  assert.equal(withOwn.status, 200, "beside an Authorization of the page's own");
});

test("a new password ends the other sessions, and this one goes on", async () => {
  const { baton: here, who } = await signedUp(server);
  const there = new Baton({ url: server.url });
  await there.signIn(who);
  await assert.rejects(here.updatePassword({ password: "another horse battery", currentPassword: "wrong" }), { status: 422 });
  await here.updatePassword({ password: "another horse battery", currentPassword: who.password });
  assert.ok(await here.restore());
  assert.equal(await there.restore(), null);
});

test("a letter leads to a new password: with the session that its link opens", async () => {
  const { baton: before, who } = await signedUp(server);
  await before.signOut();
  await before.requestPasswordReset({ email: who.email, redirectUrl: "http://localhost:5173/#/reset?from=letter" });
  const link = await fetch(await linkInLetter(server, who.email), { redirect: "manual" });
  const baton = new Baton({ url: server.url });
  assert.deepEqual(baton.land(link.headers.get("location") ?? ""), { kind: "passwordReset", success: true });
  assert.equal((await baton.restore())?.allow_password_change, true);
  await baton.updatePassword({ password: "a horse of letters" });
  await new Baton({ url: server.url }).signIn({ ...who, password: "a horse of letters" });
});

test("a letter leads to a new password: with the token in its link", async () => {
  const { baton, who } = await signedUp(strict);
  await baton.requestPasswordReset({ email: who.email, redirectUrl: "http://localhost:5173/reset" });
  const link = await fetch(await linkInLetter(strict, who.email), { redirect: "manual" });
  const other = new Baton({ url: strict.url });
  const landing = other.land(link.headers.get("location") ?? "");
  assert.ok(landing?.resetToken);
  assert.equal(other.session, null);
  await other.updatePassword({ password: "a horse of tokens", resetToken: landing.resetToken });
  assert.ok(await other.restore());
  assert.equal(await baton.restore(), null);
});

test("an address has to be confirmed where the server says so", async () => {
  const careful = await startBaton("confirmable=true");
  try {
    const baton = new Baton({ url: careful.url });
    const who = somebody();
    const { signedIn } = await baton.signUp(who, { confirmUrl: "http://localhost:5173/" });
    assert.equal(signedIn, false);
    await assert.rejects(baton.signIn(who), { status: 401, code: "unconfirmed" });
    const link = await fetch(await linkInLetter(careful, who.email), { redirect: "manual" });
    assert.deepEqual(baton.land(link.headers.get("location") ?? ""), { kind: "confirmation", success: true });
    assert.equal((await baton.signIn(who)).email, who.email);
  } finally {
    await careful.stop();
  }
});

test("headers may have other names", async () => {
  const renamed = await startBaton("headers_names.access-token=x-token", "headers_names.client=x-client");
  try {
    const baton = new Baton({ url: renamed.url, headerNames: { "access-token": "x-token", client: "x-client" } });
    await baton.signUp(somebody());
    assert.equal((await baton.fetch("/demo/members_only")).status, 200);
    assert.equal(held(baton), 2);
  } finally {
    await renamed.stop();
  }
});
