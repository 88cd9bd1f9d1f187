import assert from "node:assert/strict";
import { test } from "node:test";
import { readLanding } from "../../dist/landing.js";
import { sharedLocks } from "../../dist/locks.js";
import { HEADER_NAMES } from "../../dist/wire.js";

const TOKEN = "EAAAAAE5dk1lK2BCP3j8QFhCkfud";
const SESSION = `access-token=${TOKEN}&client=c&client_id=c&config=&expiry=17&token=${TOKEN}&uid=ann%2Btag%40example.com`;

test("an address is read and cleaned, wherever a link has put its parameters", () => {
  const session = { client: "c", uid: "ann+tag@example.com", token: TOKEN, expiry: 17 };
  const reset = `${SESSION}&reset_password=true&reset_password_token=secret`;
  for (const [address, rest] of [
    [`https://app.test/?${reset}`, "https://app.test/"],
    [`https://app.test/reset?lang=de&${reset}#top`, "https://app.test/reset?lang=de#top"],
    [`https://app.test/#/reset?${reset}`, "https://app.test/#/reset"],
    [`https://app.test/#/reset?from=letter&${reset}`, "https://app.test/#/reset?from=letter"],
    [`https://app.test/?${reset}#/reset?${reset}`, "https://app.test/#/reset"],
  ] as const) {
    const found = readLanding(new URL(address), HEADER_NAMES);
    assert.deepEqual(found?.landing, { kind: "passwordReset", success: true }, address);
    assert.deepEqual(found?.session, session, address);
    assert.equal(found?.rest.href, rest);
    assert.doesNotMatch(found?.rest.href ?? "", /secret|token|EAAA/);
  }
});

test("an address tells its kinds of landing apart", () => {
  const land = (query: string) => readLanding(new URL(`https://app.test/?${query}`), HEADER_NAMES);
  assert.deepEqual(land("account_confirmation_success=true")?.landing, { kind: "confirmation", success: true });
  assert.deepEqual(land("account_confirmation_success=false")?.landing, { kind: "confirmation", success: false });
  assert.deepEqual(land(`${SESSION}&unlock=true`)?.landing, { kind: "unlock", success: true });
  const byToken = land("reset_password_token=secret");
  assert.deepEqual(byToken?.landing, { kind: "passwordReset", success: true, resetToken: "secret" });
  assert.equal(byToken?.session, undefined);
});

test("a session in an address that is no landing is left alone", () => {
  assert.equal(readLanding(new URL(`https://app.test/?${SESSION}`), HEADER_NAMES), undefined);
  assert.equal(readLanding(new URL("https://app.test/?page=2#/list?sort=name"), HEADER_NAMES), undefined);
});

test("without Web Locks, shared holders go together and an exclusive one alone, in turn", async () => {
  const locks = sharedLocks();
  const log: string[] = [];
  const hold = (name: string, mode: LockMode) => {
    let release = () => {};
    const held = new Promise<void>((resolve) => (release = resolve));
    const done = locks.request("x", { mode }, async () => {
      log.push(`${name} in`);
      await held;
      log.push(`${name} out`);
    });
    return { release, done };
  };
  const [a, b, c, d] = [hold("a", "shared"), hold("b", "shared"), hold("c", "exclusive"), hold("d", "shared")];
  const control = new AbortController();
  const given = locks.request("x", { mode: "exclusive", signal: control.signal }, async () => log.push("never"));
  control.abort();
  await assert.rejects(given, { name: "AbortError" });
  a.release();
  await a.done;
  assert.deepEqual(log, ["a in", "b in", "a out"]);
  b.release();
  await b.done;
  c.release();
  await c.done;
  d.release();
  await d.done;
  assert.deepEqual(log, ["a in", "b in", "a out", "b out", "c in", "c out", "d in", "d out"]);
  await assert.rejects(locks.request("x", {}, () => Promise.reject(new Error("mine"))), /mine/);
  assert.equal(await locks.request("x", {}, async () => "free"), "free");
});
