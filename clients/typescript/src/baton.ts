import { call } from "./call.js";
import { BatonError, errorOf, jsonOf } from "./errors.js";
import { Emitter, type Events } from "./events.js";
import { Keeper } from "./keeper.js";
import { readLanding, type Landing } from "./landing.js";
import { sharedLocks } from "./locks.js";
import { generation } from "./session.js";
import { localStorageStorage, memoryStorage, type Storage } from "./storage.js";
import { HEADER_NAMES, type HeaderNames } from "./wire.js";

/** How a client is set up. */
export interface BatonOptions {
  /**
   * Where the server's auth routes are, such as `https://api.example.com/auth`; in a page also `/auth`. Credentials are sent to
   * this origin and to no other.
   */
  url: string | URL;
  /**
   * Where the session is kept. `"local"`, the default in a page: in `localStorage`, for all tabs. `"memory"`, the default
   * elsewhere: it is gone with the page. `"cookie"`: in a cookie that no script sees; the server has to have `cookie_enabled`. Or a
   * storage of your own.
   */
  storage?: "local" | "memory" | "cookie" | Storage;
  /**
   * Sends one request at a time, in all tabs, for a server whose every request rotates (`batch_request_buffer_throttle = 0`).
   * The next one is sent when the head of the response is there. Default: false.
   */
  serial?: boolean;
  /**
   * The server's batch window in seconds (`batch_request_buffer_throttle`). After that time a request has to bring a new token;
   * if its answer is blank and no other one has brought it, one was lost on the way. Default: 5.
   */
  batchWindow?: number;
  /** Names of the auth headers that the server has changed. */
  headerNames?: Partial<HeaderNames>;
  /** What requests are sent with. Default: the global `fetch`. */
  fetch?: typeof globalThis.fetch;
}

/** An account, with the profile fields that the server declares. */
export interface User {
  id: number | string;
  email: string;
  uid: string;
  provider: string;
  /** Whether this session may set a password without the one so far: for a while after a reset link. */
  allow_password_change: boolean;
  [field: string]: unknown;
}

/** One of an account's sessions. Times are ISO 8601 in UTC. */
export interface Device {
  id: string;
  /** Whether it is this one. */
  current: boolean;
  created_at: string;
  last_seen_at: string;
  expires_at: string;
  ip: string | null;
  user_agent: string | null;
}

/** The session without its secret. */
export interface SessionInfo {
  client: string;
  uid: string;
  /** Number of the token that is held; 0 where a cookie holds it. */
  generation: number;
  /** When the session ends unless it is used. */
  expiresAt: Date;
}

/**
 * A client of a baton server: signs in and out, and keeps the access token, which changes with every request.
 *
 * Its methods throw {@link BatonError} for what the server refuses and where there was no answer; `fetch` gives back whatever the
 * server answers, and throws what the global `fetch` throws.
 */
export class Baton {
  readonly #url: URL;
  readonly #keeper: Keeper;
  readonly #events = new Emitter();
  readonly #names: HeaderNames;
  readonly #cookie: boolean;
  readonly #send: typeof globalThis.fetch;

  constructor(options: BatonOptions) {
    this.#url = new URL(options.url, globalThis.location?.href);
    this.#url.pathname = this.#url.pathname.replace(/\/+$/, "");
    this.#names = { ...HEADER_NAMES, ...options.headerNames };
    this.#send = options.fetch ?? ((...request) => globalThis.fetch(...request));
    const key = `baton ${this.#url}`;
    const { storage = typeof document === "undefined" ? "memory" : "local" } = options;
    this.#cookie = storage === "cookie";
    const kept = typeof storage === "object" ? storage : storage === "local" ? localStorageStorage(key) : memoryStorage();
    this.#keeper = new Keeper({
      origin: this.#url.origin,
      names: this.#names,
      storage: this.#cookie ? { ...kept, read: () => undefined } : kept,
      cookie: this.#cookie,
      serial: options.serial ?? false,
      window: (options.batchWindow ?? 5) * 1000,
      shared: this.#cookie ? key : kept.shared,
      locks: sharedLocks(),
      events: this.#events,
      fetch: (request) => this.#send(request),
      validate: () => call(this.#route("/validate_token"), undefined, this.#url),
    });
  }

  /** The session that is held, or `null`. Whether it is good only the server knows: {@link restore}. */
  get session(): SessionInfo | null {
    const { session } = this.#keeper;
    if (!session) return null;
    const { client, uid, token, expiry } = session;
    return { client, uid, generation: generation(token), expiresAt: new Date(expiry * 1000) };
  }

  /** Calls `listener` at each event of this kind, until the function that this returns is called. */
  on<E extends keyof Events>(event: E, listener: (event: Events[E]) => void): () => void {
    return this.#events.on(event, listener);
  }

  /**
   * As the global `fetch`, with the session's token for requests to the server's origin. A relative address counts from there.
   *
   * - A `GET` or `HEAD` whose response was lost is sent once more. Anything else is not: the error is thrown, and only the token
   *   is asked for again.
   * - A request that was refused because a newer token is here already was not handled, and is sent once more.
   * - A 401 that says that the session is over ends it. No other status does, and neither does being offline.
   */
  readonly fetch = async (input: RequestInfo | URL, init?: RequestInit): Promise<Response> => {
    const made = call(input, init, this.#url);
    if (made.url.origin === this.#url.origin) return this.#keeper.send(made);
    return this.#send(input instanceof Request ? input : made.url, init);
  };

  /**
   * Who is signed in, as the server says; `null` if nobody is. To be called when a page has loaded: it also asks for the token
   * that a response carried which the page before did not live to see.
   */
  async restore(): Promise<User | null> {
    if (!this.session && !this.#cookie) return null;
    const response = await this.#reached(() => this.#keeper.send(call(this.#route("/validate_token"), {}, this.#url), true));
    if (response.status === 401) return null;
    const user = await dataOf<User>(response);
    if (!this.session) this.#keeper.open(response);
    return user;
  }

  /**
   * Registers an account. `signedIn` is false if its address has to be confirmed first: a letter is under way, whose link leads
   * to `confirmUrl`.
   */
  async signUp(
    fields: { email: string; password: string; [profile: string]: unknown },
    options: { confirmUrl?: string } = {},
  ): Promise<{ user: User; signedIn: boolean }> {
    const response = await this.#anonymous("POST", "", {
      ...fields,
      password_confirmation: fields.password,
      confirm_success_url: options.confirmUrl,
    });
    const user = await dataOf<User>(response);
    return { user, signedIn: this.#keeper.open(response) };
  }

  /** Signs in. A session that was held before is forgotten here; the server keeps it among the account's devices. */
  async signIn(fields: { email: string; password: string }): Promise<User> {
    const response = await this.#anonymous("POST", "/sign_in", fields);
    const user = await dataOf<User>(response);
    this.#keeper.open(response);
    return user;
  }

  /**
   * Signs out. The token is forgotten in any case; if the server could not be told, this throws, and the session stays among the
   * account's devices without anybody who could use it. (A cookie can be taken away by the server alone: then it stays.)
   */
  async signOut(): Promise<void> {
    const { session } = this.#keeper;
    try {
      const response = await this.#reached(() =>
        this.#keeper.send(call(this.#route("/sign_out"), { method: "DELETE" }, this.#url, true)),
      );
      // It is over already: so much the better.
      if (!response.ok && response.status !== 404 && response.status !== 401) throw await errorOf(response);
    } catch (error) {
      if (session && !this.#cookie) this.#keeper.drop(session);
      throw error;
    }
    if (session) this.#keeper.drop(session);
  }

  /** Has a letter sent whose link leads to `redirectUrl`, where {@link land} is to be called. */
  async requestPasswordReset(fields: { email: string; redirectUrl?: string }): Promise<void> {
    await dataOf(await this.#anonymous("POST", "/password", { email: fields.email, redirect_url: fields.redirectUrl }));
  }

  /**
   * Sets a new password. `currentPassword` is needed unless the session comes from a reset link; `resetToken` is what
   * {@link land} gave. Other sessions of the account end.
   */
  async updatePassword(fields: { password: string; currentPassword?: string; resetToken?: string }): Promise<User> {
    const body = {
      password: fields.password,
      password_confirmation: fields.password,
      current_password: fields.currentPassword,
      reset_password_token: fields.resetToken,
    };
    if (fields.resetToken === undefined) return dataOf<User>(await this.#signedIn("PUT", "/password", body));
    const response = await this.#anonymous("PUT", "/password", body);
    const user = await dataOf<User>(response);
    this.#keeper.open(response);
    return user;
  }

  /** Has the letter sent once more that confirms an address. */
  async requestConfirmation(fields: { email: string; redirectUrl?: string }): Promise<void> {
    const body = { email: fields.email, redirect_url: fields.redirectUrl };
    await dataOf(await this.#anonymous("POST", "/confirmation", body));
  }

  /** Has a letter sent whose link lifts a lock. */
  async requestUnlock(fields: { email: string; redirectUrl?: string }): Promise<void> {
    await dataOf(await this.#anonymous("POST", "/unlock", { email: fields.email, redirect_url: fields.redirectUrl }));
  }

  /**
   * Reads what a letter's link has put into the address of this page, takes it out of there, and takes up the session that the
   * link has opened. `null` if the address says nothing.
   *
   * To be called on the page alone that letters lead to: whoever makes up such an address could sign its visitor in as
   * themselves.
   */
  land(address: string | URL = globalThis.location.href): Landing | null {
    const found = readLanding(new URL(address), this.#names);
    if (!found) return null;
    if (found.session && (this.#cookie || generation(found.session.token) > 0)) this.#keeper.take(found.session);
    if (globalThis.location?.href === String(address)) globalThis.history?.replaceState(globalThis.history.state, "", found.rest);
    return found.landing;
  }

  /** Changes the account's fields. A new e-mail address may have to be confirmed before it is used. */
  async updateAccount(
    fields: { email?: string; currentPassword?: string; [profile: string]: unknown },
    options: { confirmUrl?: string } = {},
  ): Promise<User> {
    const { currentPassword, ...rest } = fields;
    const body = { ...rest, current_password: currentPassword, confirm_success_url: options.confirmUrl };
    const user = await dataOf<User>(await this.#signedIn("PUT", "", body, true));
    this.#keeper.rename(user.uid);
    return user;
  }

  /** Deletes the account, and with it all its sessions. */
  async deleteAccount(): Promise<void> {
    const { session } = this.#keeper;
    await dataOf(await this.#signedIn("DELETE", "", undefined, true));
    if (session) this.#keeper.drop(session);
  }

  /** The account's sessions, most recently used first. */
  async devices(): Promise<Device[]> {
    return dataOf<Device[]>(await this.#signedIn("GET", "/sessions"));
  }

  /** Ends one of them. */
  async endDevice(id: string): Promise<void> {
    const { session } = this.#keeper;
    await dataOf(await this.#signedIn("DELETE", `/sessions/${encodeURIComponent(id)}`));
    if (session?.client === id) this.#keeper.drop(session);
  }

  /** Stops listening to other tabs. The session stays. */
  close(): void {
    this.#keeper.close();
  }

  #route(path: string): URL {
    return new URL(`${this.#url.pathname}${path}`, this.#url);
  }

  #anonymous(method: string, path: string, body: object): Promise<Response> {
    const credentials = this.#cookie ? "include" : "same-origin";
    return this.#reached(() => this.#send(this.#route(path), { ...json(method, body), credentials }));
  }

  #signedIn(method: string, path: string, body?: object, hidesRefusals = false): Promise<Response> {
    return this.#reached(() => this.#keeper.send(call(this.#route(path), json(method, body), this.#url, hidesRefusals)));
  }

  async #reached(send: () => Promise<Response>): Promise<Response> {
    try {
      return await send();
    } catch (cause) {
      throw new BatonError(0, "network", ["The server could not be reached."], {}, undefined, { cause });
    }
  }
}

function json(method: string, body?: object): RequestInit {
  return body ? { method, headers: { "content-type": "application/json" }, body: JSON.stringify(body) } : { method };
}

/** `data` in the body of a response that was successful; else its error. */
async function dataOf<T>(response: Response): Promise<T> {
  if (!response.ok) throw await errorOf(response);
  return (await jsonOf(response))["data"] as T;
}
