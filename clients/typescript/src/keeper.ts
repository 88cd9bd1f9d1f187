import type { Call } from "./call.js";
import { jsonOf } from "./errors.js";
import type { Emitter } from "./events.js";
import type { Locks } from "./locks.js";
import { generation, newer, type Session } from "./session.js";
import type { Storage } from "./storage.js";
import { openLine, type Line, type News } from "./tabs.js";
import { heard, present, type HeaderNames } from "./wire.js";

/** Reasons of a 401 after which there is no session. */
const OVER: ReadonlySet<unknown> = new Set(["token_superseded", "token_expired", "session_revoked", "token_invalid"]);

/** How long a refusal waits for responses under way that may bring a newer token, in milliseconds. */
const LANDING = 10_000;

/** What a {@link Keeper} works with. */
export interface KeeperParts {
  origin: string;
  names: HeaderNames;
  storage: Storage;
  /** The token travels in a cookie. */
  cookie: boolean;
  /** One request at a time. */
  serial: boolean;
  /** The server's batch window, in milliseconds. */
  window: number;
  /** Names the session to locks and other tabs; empty if they do not share it. */
  shared: string;
  locks: Locks;
  events: Emitter;
  fetch: (request: Request) => Promise<Response>;
  /** Makes the call that asks who is signed in. */
  validate: () => Call;
}

/** A request that was sent, and what came of it. */
interface Flight {
  /** What it presented. */
  presented: Session | null;
  response?: Response;
  error?: unknown;
}

/**
 * Keeps the session: sends requests with its token, takes new tokens from responses, and finds out when it is over.
 *
 * Three rules: a token is never replaced by an older one; a token whose response was lost is asked for again while the server
 * still gives it; and a session ends only when the server refuses the newest token that anybody here has.
 */
export class Keeper {
  readonly #parts: KeeperParts;
  readonly #line: Line;
  readonly #lock: string;
  #memory: Session | null = null;
  /** The generation that a request presented whose response was lost: its successor may have been in there. */
  #doubt: number | undefined;
  #recovery: Promise<boolean> | undefined;
  #flights = 0;
  /** When the token came here; long ago, if the next request is to bring another one. */
  #since = -Infinity;
  /** An answer was blank that should have carried a token, unless another one did. */
  #missing = false;
  /** The session that listeners believe to be there. */
  #announced: string | undefined;

  constructor(parts: KeeperParts) {
    this.#parts = parts;
    this.#lock = parts.shared || `baton ${Math.random()}`;
    this.#line = openLine(parts.shared, (news) => this.#hear(news));
    globalThis.addEventListener?.("online", this.#online);
    globalThis.addEventListener?.("pagehide", this.#leaving);
    this.#announced = this.session?.client;
  }

  /** The newest state of the session that anybody here knows of. */
  get session(): Session | null {
    const stored = this.#parts.storage.read();
    if (stored !== undefined) {
      const best = stored && this.#memory ? newer(this.#memory, stored) : stored;
      if (best && stored && best.token !== stored.token) this.#parts.storage.write(best);
      if (this.#memory && best && best.token !== this.#memory.token) this.#came();
      this.#memory = best;
    }
    return this.#memory;
  }

  /** Sends a call, with the session's token if there is one. With `unbatch` it asks for the current token. */
  async send(call: Call, unbatch = false): Promise<Response> {
    let flight = await this.#fly(call, unbatch);
    if (!flight.response && flight.presented && call.safe && !call.signal?.aborted) {
      flight = await this.#fly(call, true);
    }
    if (!flight.response) {
      if (flight.presented) void this.recover();
      throw flight.error;
    }
    if (flight.presented && (await this.#isOutdated(call, flight.presented, flight.response)) && call.replayable) {
      const again = await this.#fly(call);
      if (!again.response) throw again.error;
      if (again.presented) await this.#isOutdated(call, again.presented, again.response);
      return again.response;
    }
    return flight.response;
  }

  /** Asks the server for the current token. Whether it has told who is signed in; several who ask at once share a request. */
  recover(): Promise<boolean> {
    this.#recovery ??= this.#ask().finally(() => (this.#recovery = undefined));
    return this.#recovery;
  }

  /** Takes up the session that a response has opened. `false` if it has opened none. */
  open(response: Response): boolean {
    const session = heard(response.headers, this.#parts.names);
    if (!session || !(session.token || this.#parts.cookie)) return false;
    this.take(session);
    return true;
  }

  /** Takes up this session. */
  take(session: Session): void {
    this.#doubt = undefined;
    this.#missing = false;
    this.#since = -Infinity;
    this.#set(session);
    this.#announce({ about: "signedIn", session });
  }

  /** The account goes by another name from now on. */
  rename(uid: string): void {
    const { session } = this;
    if (session && uid && uid !== session.uid) this.#set({ ...session, uid });
  }

  /** Forgets the session, if it is still this one. Without a `code` somebody has signed out. */
  drop({ client }: Session, code?: string): void {
    const { session } = this;
    if (session?.client !== client) return;
    this.#doubt = undefined;
    this.#set(null);
    this.#announce(code === undefined ? { about: "signedOut", session } : { about: "ended", session, code });
  }

  /** Ends listening to other tabs. */
  close(): void {
    this.#line.close();
    globalThis.removeEventListener?.("online", this.#online);
    globalThis.removeEventListener?.("pagehide", this.#leaving);
  }

  /** Sends a call once. The lock tells others that a response is under way, until what it brought was taken in. */
  #fly(call: Call, unbatch = false): Promise<Flight> {
    const { cookie, names, locks, serial } = this.#parts;
    return locks.request(this.#lock, { mode: serial ? "exclusive" : "shared" }, async () => {
      if (call.signal?.aborted) return { presented: null, error: call.signal.reason };
      const session = this.session;
      // Nothing may be known yet of a session whose token is in a cookie.
      const presented = session ?? (cookie ? { client: "", uid: "", token: "", expiry: 0 } : null);
      const asks = presented !== null && (unbatch || this.#doubt !== undefined);
      const late = Date.now() - this.#since > this.#parts.window;
      this.#flights += 1;
      try {
        let request = call.request(asks);
        if (cookie) request = new Request(request, { credentials: "include" });
        else if (session) present(session, request.headers, names);
        const response = await this.#parts.fetch(request);
        if (presented) this.#land(call, presented, response, { asks, late });
        return { presented, response };
      } catch (error) {
        if (presented) this.#doubtAbout(presented);
        return { presented, error };
      } finally {
        this.#flights -= 1;
        if (presented && this.#flights === 0 && this.#missing) this.#miss(presented);
      }
    });
  }

  /** Takes in what a response says of the token. */
  #land(call: Call, presented: Session, response: Response, { asks, late }: { asks: boolean; late: boolean }): void {
    const { cookie, names, origin } = this.#parts;
    const ours = new URL(response.url || call.url).origin === origin;
    const said = ours ? heard(response.headers, names) : undefined;
    const handedOut = cookie ? said !== undefined && said.expiry > 0 : Boolean(said?.token);
    const session = this.session;
    if (said && session && said.client === session.client) {
      // The uid stays: only a change of the account changes it, and an answer that was under way does not know of that.
      const state = { ...said, uid: session.uid, token: said.token || session.token, expiry: said.expiry || session.expiry };
      if (handedOut) this.#set(newer(session, state));
      if (handedOut && (asks || generation(said.token) > (this.#doubt ?? 0))) this.#doubt = undefined;
      if (handedOut) this.#came();
      // Browsers send a request again by themselves if a connection that they had kept open breaks.
      else if (late && session.token === presented.token) this.#missing = true;
    }
    // A gateway may have lost the answer that carried the token, and of one that led on somewhere else nothing can be seen.
    const lost = response.status >= 500 && !said;
    const ledOn = (response.redirected || response.type === "opaqueredirect") && !handedOut;
    if (lost || ledOn) this.#miss(presented);
  }

  /** A token is here, or the one that was here is confirmed. */
  #came(): void {
    this.#since = Date.now();
    this.#missing = false;
  }

  /** An answer to this may have carried a token that is not here. */
  #miss(presented: Session): void {
    this.#missing = false;
    const known = this.#doubt !== undefined;
    this.#doubtAbout(presented);
    // Once: while the server is away, each request asks by itself.
    if (!known) void this.recover();
  }

  #doubtAbout(presented: Session): void {
    if (this.session?.client !== presented.client && !this.#parts.cookie) return;
    this.#doubt = Math.max(this.#doubt ?? 0, generation(presented.token));
  }

  /**
   * Whether this response refuses a token that has a successor here, so that the request (which was not handled) is to be
   * sent again. Ends the session if it refuses the newest one.
   */
  async #isOutdated(call: Call, presented: Session, response: Response): Promise<boolean> {
    const { cookie, names, validate } = this.#parts;
    // With auth headers the token was good, and the 401 is the application's.
    const refusal = heard(response.headers, names) ? undefined : await refusalIn(call, response);
    if (!refusal) return false;
    const hasSuccessor = () => {
      const { session } = this;
      return session?.client === presented.client && generation(session.token) > generation(presented.token);
    };
    if (hasSuccessor()) return true;
    await this.#landed();
    if (hasSuccessor()) return true;
    if (call.url.pathname === validate().url.pathname) {
      if (refusal !== "unclear") this.drop(presented, refusal);
      else if (cookie) this.drop(presented, "not_authenticated");
      return false;
    }
    // What a cookie holds cannot be seen. If it is good by now, the request was overtaken.
    if (refusal === "unclear" || cookie) {
      const isGood = await this.recover();
      return isGood && (refusal === "unclear" ? call.hidesRefusals && hasSuccessor() : true);
    }
    this.drop(presented, refusal);
    return false;
  }

  /** Waits until every response that is under way, in any tab, was taken in. */
  async #landed(): Promise<void> {
    const signal = AbortSignal.timeout(LANDING);
    await this.#parts.locks.request(this.#lock, { mode: "exclusive", signal }, async () => {}).catch(() => {});
  }

  async #ask(): Promise<boolean> {
    if (!this.session && !this.#parts.cookie) return false;
    const call = this.#parts.validate();
    const { presented, response } = await this.#fly(call, true);
    if (!presented || !response) return false;
    if (response.ok) {
      if (this.#parts.cookie && !this.session) this.open(response);
      return true;
    }
    const outdated = await this.#isOutdated(call, presented, response);
    return outdated && ((await this.#fly(call, true)).response?.ok ?? false);
  }

  #set(session: Session | null): void {
    const before = this.#memory;
    this.#memory = session;
    this.#parts.storage.write(session);
    if (!session || session.token === before?.token || session.client !== before?.client) return;
    this.#announce({ about: "token", session });
  }

  #hear(news: News): void {
    const before = this.#memory;
    if (this.#parts.storage.read() !== undefined) {
      void this.session;
    } else if (news.about === "signedIn") {
      this.#memory = news.session;
    } else if (before?.client === news.session.client && (news.about === "signedOut" || news.about === "ended")) {
      this.#memory = null;
    }
    if (news.about !== "doubt") return this.#tell(news, true);
    // A tab was closed before its response came.
    if (this.session?.client !== news.session.client) return;
    this.#doubtAbout(this.session);
    void this.recover();
  }

  /** Tells listeners here and in the other tabs. */
  #announce(news: News): void {
    this.#tell(news, false);
    this.#line.tell(news);
  }

  /** Tells listeners here, unless they know. */
  #tell({ about, session: { client, uid }, code = "" }: News, elsewhere: boolean): void {
    const { events } = this.#parts;
    const known = this.#announced === client;
    if (about === "token") return events.emit(about, { generation: generation(this.session?.token ?? ""), elsewhere });
    if (about === "doubt" || known === (about === "signedIn")) return;
    this.#announced = about === "signedIn" ? client : undefined;
    if (about === "ended") events.emit(about, { uid, code, elsewhere });
    else events.emit(about, { uid, elsewhere });
  }

  readonly #online = async () => {
    // One that has begun without a network fails.
    await this.#recovery;
    if (this.#doubt !== undefined) void this.recover();
  };

  readonly #leaving = () => {
    const { session } = this;
    if (session && this.#flights > 0) this.#line.tell({ about: "doubt", session });
  };
}

/** Why a response refuses the token; `unclear` if it does not say whether that is what it refuses. */
async function refusalIn(call: Call, response: Response): Promise<string | undefined> {
  if (response.status !== 401 && !(call.hidesRefusals && response.status === 404)) return undefined;
  const { code } = await jsonOf(response.clone());
  if (OVER.has(code)) return code as string;
  return code === undefined || code === "not_found" || code === "not_authenticated" ? "unclear" : undefined;
}
