// What each client has to be able to do, by the names of the table's columns. Each starts with nothing
// stored, and with an account that exists.
import { linkInLetter, somebody, windowPasses } from "../typescript/build/support/baton.js";

/** The batch window of all servers, in seconds. */
export const WINDOW = 2;
const MEMBERS_ONLY = "/demo/members_only";

/** A client did not do what it has to. */
export class Finding extends Error {}

/** A client leaves to the application what is to be checked. */
export const NOT_THERE = Symbol("not there");

function expect(isSo, what) {
  if (!isSo) throw new Finding(what);
}

async function isAnswered(page, what) {
  expect(await page.does("get", MEMBERS_ONLY), what);
}

async function signIn(page, who) {
  await page.load();
  expect((await page.does("signIn", who)) === who.email, "does not sign in");
}

export const checks = {
  async "sign up"({ page }) {
    await page.load();
    const who = somebody();
    expect((await page.does("signUp", who)) === who.email, "does not sign up");
    await isAnswered(page, "not signed in by signing up");
  },

  async "sign in"({ page, who }) {
    await page.load();
    expect((await page.finds()) === null, "signed in from the start");
    const wrong = await page.does("signIn", { ...who, password: "not the right one" }).catch((finding) => finding);
    expect(wrong instanceof Finding, "takes a wrong password for right");
    expect((await page.does("signIn", who)) === who.email, "does not sign in");
    await isAnswered(page, "not signed in");
  },

  async validate({ page, who }) {
    await signIn(page, who);
    expect((await page.does("validate")) === who.email, "does not validate");
    await windowPasses(WINDOW);
    await isAnswered(page, "does not take the token of a validation");
  },

  async "a request per window"({ page, who }) {
    await signIn(page, who);
    for (const number of ["second", "third", "fourth"]) {
      await isAnswered(page, `the one before the ${number} is refused`);
      if (number !== "fourth") await windowPasses(WINDOW);
    }
  },

  async "several in a window"({ page, who }) {
    await signIn(page, who);
    for (const number of ["first", "second", "third"]) await isAnswered(page, `the ${number} is refused`);
    await windowPasses(WINDOW);
    await isAnswered(page, "the one after the window is refused");
  },

  async batch({ page, who }) {
    await signIn(page, who);
    for (const number of ["first", "second"]) {
      const answered = await page.doAtOnce(6, "get", MEMBERS_ONLY);
      expect(answered.every(Boolean), `some of the ${number} are refused`);
      await windowPasses(WINDOW);
    }
    await isAnswered(page, "the one after two batches is refused");
  },

  async reload({ page, who }) {
    await signIn(page, who);
    for (const time of ["once", "twice"]) {
      await page.load();
      expect((await page.finds()) === who.email, `not signed in when reloaded ${time}`);
    }
    await windowPasses(WINDOW);
    await isAnswered(page, "refused after the window");
    await page.does("signOut");
    expect(!(await page.does("token")), "keeps its token when it signs out");
  },

  async "reload in mid-request"({ page, who, proxy }) {
    await signIn(page, who);
    // The server has answered with the next token, and the page is gone before it comes.
    const reloaded = new Promise((resolve, reject) => {
      proxy.answered = async ({ path }) => {
        if (path === MEMBERS_ONLY) await page.load().then(resolve, reject);
      };
    });
    await page.starts("get", MEMBERS_ONLY);
    await reloaded;
    proxy.answered = () => {};
    expect((await page.finds()) === who.email, "not signed in when reloaded");
    await windowPasses(WINDOW);
    await isAnswered(page, "refused after the window");
  },

  async "two tabs"({ page, open, who }) {
    await signIn(page, who);
    const beside = await open();
    await beside.load();
    expect((await beside.finds()) === who.email, "not signed in in the second tab");
    // Now the first one's token is two behind.
    await windowPasses(WINDOW);
    await isAnswered(beside, "the second tab is refused");
    await isAnswered(page, "the first tab is refused");
    await isAnswered(beside, "the second tab is refused after the first one's request");
    await beside.close();
  },

  async "lost answer"({ page, who, proxy }) {
    await signIn(page, who);
    proxy.fate = () => ({ instead: 502 });
    expect(!(await page.does("get", MEMBERS_ONLY)), "takes 502 for an answer");
    proxy.fate = () => "pass";
    await windowPasses(WINDOW);
    await isAnswered(page, "refused after the window");
  },

  async "sign out"({ page, who, proxy }) {
    await signIn(page, who);
    await isAnswered(page, "not signed in");
    const { "access-token": token, client, uid } = proxy.seen.at(-1).headers;
    await page.does("signOut");
    expect(!(await page.does("token")), "keeps its token");
    expect(!(await page.does("get", MEMBERS_ONLY)), "still let in");
    const answer = await fetch(`${proxy.url}/validate_token`, { headers: { "access-token": token, client, uid } });
    expect((await answer.json()).code === "session_revoked", "the session lives on");
  },

  // The last: afterwards the account has another password.
  async "password reset"({ page, who, server }) {
    await page.load();
    if (!(await page.has("requestReset"))) return NOT_THERE;
    await page.does("requestReset", who);
    await page.land(await linkInLetter(server, who.email));
    expect((await page.finds()) === who.email, "not signed in by the link");
    const password = "another horse and battery";
    await page.does("setPassword", password);
    await isAnswered(page, "not signed in with the new password");
    await page.does("signOut");
    expect((await page.does("signIn", { ...who, password })) === who.email, "does not sign in with the new password");
  },
};
