// Devices that talk to a server as its protocol wants it, and a record of all that they say and hear.

/** The number of a token within its session: bytes 1 to 4, big endian (docs/protocol.md, "Tokens"). 0 if it is none. */
export function numberOf(token) {
  if (!/^[\w-]{28}$/.test(token)) return 0;
  const start = atob(token.slice(0, 8).replaceAll("-", "+").replaceAll("_", "/"));
  return [1, 2, 3, 4].reduce((number, index) => number * 256 + start.charCodeAt(index), 0);
}

/**
 * `settings` are those of a realm, as `/dev/settings` tells them; `now` gives milliseconds, and `changed` is called after each
 * event.
 */
export class Recorder {
  /** For `diagram.mjs`. */
  events = [];
  /** All that went to and fro: number, device, method, path, request and response headers, status, body, milliseconds. */
  exchanges = [];
  devices = [];

  constructor({ origin, settings, now, changed = () => {} }) {
    Object.assign(this, { origin, settings, now, changed });
  }

  /** A device that is not signed in. It is good for one session. */
  device() {
    const device = new Device(this, this.devices.length + 1);
    this.devices.push(device);
    return device;
  }

  /** The options of a picture of it. */
  get names() {
    return Object.fromEntries(this.devices.map((device) => [device.number, device.name]));
  }

  add(event) {
    this.events.push({ at: this.now(), ...event });
    this.changed();
  }
}

export class Device {
  /** The session: `client` is empty while there is none. */
  client = "";
  uid = "";
  token = "";
  /** Every token that it was ever handed, by number. */
  tokens = new Map();
  /** Why its session is over. */
  ended = "";
  /** Until when the token before it is taken as well. */
  windowUntil = 0;

  constructor(recorder, number) {
    this.recorder = recorder;
    this.number = number;
    this.name = `Device ${number}`;
  }

  /** Whether it has a session that is not known to be over. */
  get signedIn() {
    return this.client !== "" && this.ended === "";
  }

  get held() {
    return numberOf(this.token);
  }

  signUp(account) {
    return this.#enter("", account, "sign up");
  }

  signIn(account) {
    return this.#enter("/sign_in", account, "sign in");
  }

  #enter(below, account, note) {
    return this.send("POST", this.recorder.settings.mount + below, { body: account, note, anonymous: true });
  }

  signOut() {
    return this.send("DELETE", `${this.recorder.settings.mount}/sign_out`, { note: "sign out", ends: true });
  }

  /** The account's sessions, as the server lists them; `undefined` if it does not. */
  async sessions() {
    const answer = await this.send("GET", `${this.recorder.settings.mount}/sessions`, { note: "list devices" });
    return answer.json?.data;
  }

  /** Ends a session of the account. */
  async end(id) {
    const path = `${this.recorder.settings.mount}/sessions/${encodeURIComponent(id)}`;
    const answer = await this.send("DELETE", path, { note: "end device", ends: id === this.client });
    const other = this.recorder.devices.find((device) => device.client === id && device !== this && device.signedIn);
    if (answer.status === 200 && other) other.over("ended elsewhere");
    return answer;
  }

  get(note) {
    return this.send("GET", "/demo/members_only", { note });
  }

  batch(count) {
    return Promise.all(Array.from({ length: count }, () => this.get()));
  }

  slow(seconds) {
    return this.send("GET", `/demo/slow?ms=${seconds * 1000}`, { note: `slow, ${seconds} s`, takes: seconds });
  }

  /** A request with a token that was handed out before. */
  replay(number, note = `${number} again`) {
    return this.send("GET", "/demo/members_only", { note, token: this.tokens.get(number) });
  }

  /** A request whose answer does not arrive. */
  lose() {
    return this.send("GET", "/demo/members_only", { note: "answer lost", lose: true });
  }

  /** Asks for the current token. */
  askAgain() {
    return this.send("GET", "/demo/members_only?unbatch=true", { note: "asks again" });
  }

  /** Its session is over, and not by a request of its own. */
  over(why) {
    this.ended = why;
    this.recorder.add({ type: "ended", device: this.number, why });
  }

  /**
   * Sends a request and takes in what the answer says.
   *
   * `token`: another than the newest; `lose`: never see the answer; `anonymous`: present nothing; `ends`: a success ends the
   * session; `takes`: how many seconds the server works on it.
   */
  async send(method, path, { body, note = "", token = this.token, lose = false, anonymous = false, ends = false, takes } = {}) {
    const { recorder } = this;
    const names = recorder.settings.headers_names;
    const headers = {};
    if (!anonymous && this.client) {
      headers[names["access-token"]] = token;
      headers[names.client] = this.client;
      headers[names.uid] = toBytes(this.uid);
    }
    if (body) headers["content-type"] = "application/json";
    const number = recorder.exchanges.length + 1;
    const exchange = { number, device: this.number, method, path, note, request: headers, lose, takes };
    recorder.exchanges.push(exchange);
    const presented = anonymous ? null : numberOf(token) || null;
    recorder.add({
      type: "sent",
      exchange: number,
      device: this.number,
      token: presented,
      what: `${method} ${path.split("?")[0]}`,
      note,
    });
    const began = performance.now();
    const options = { method, headers, cache: "no-store", credentials: "omit", redirect: "manual" };
    let response;
    try {
      response = await fetch(recorder.origin + path, { ...options, body: body && JSON.stringify(body) });
      exchange.body = await response.text();
    } catch (error) {
      Object.assign(exchange, { status: 0, error: String(error), took: performance.now() - began });
      recorder.add({ type: "received", exchange: number, status: 0, token: null, blank: false });
      return exchange;
    }
    const { status, headers: heard } = response;
    Object.assign(exchange, { status, took: performance.now() - began, response: [...heard], json: parse(exchange.body) });
    this.#takeIn(exchange, heard, { lose, ends, presented });
    return exchange;
  }

  #takeIn(exchange, headers, { lose, ends, presented }) {
    const { recorder } = this;
    const names = recorder.settings.headers_names;
    const { number, status } = exchange;
    const get = (name) => headers.get(name)?.trim() ?? "";
    const [client, token] = [get(names.client), get(names["access-token"])];
    const generation = numberOf(token);
    exchange.handedOut = generation;
    exchange.blank = client !== "" && generation === 0;
    const refusal = status === 401 && client === "" ? (exchange.json?.code ?? "") : "";
    exchange.code = refusal;
    const opens =
      generation > 0 && presented !== null && (!this.tokens.has(generation) || recorder.settings.forgive_lost_responses);
    if (generation) this.tokens.set(generation, token);
    if (opens) this.windowUntil = recorder.now() + recorder.settings.batch_request_buffer_throttle * 1000;
    if (client && !lose) {
      // A session that has just been opened, or a newer token of this one. Never an older one.
      const opened = presented === null && client !== this.client;
      if (opened || generation > this.held) this.token = token;
      this.client = client;
      this.uid = fromBytes(get(names.uid)) || this.uid;
    }
    const over = ends && status === 200;
    if (over) this.ended = "signed out";
    recorder.add({
      type: "received",
      exchange: number,
      status,
      token: generation || null,
      blank: exchange.blank,
      ...(refusal && { code: refusal }),
      ...(lose && { lost: true }),
      ...(over && { ends: true }),
    });
    // The server says that the session is over, whoever ended it.
    const gone =
      ["session_revoked", "token_expired"].includes(refusal) ||
      (refusal === "token_superseded" && recorder.settings.on_reuse === "revoke");
    if (gone && this.ended === "") this.over(refusal === "token_expired" ? "expired" : "revoked");
  }
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Text as the bytes of its UTF-8, a character each: all that a header can hold. */
function toBytes(text) {
  return String.fromCharCode(...new TextEncoder().encode(text));
}

function fromBytes(bytes) {
  return new TextDecoder().decode(Uint8Array.from(bytes, (byte) => byte.charCodeAt(0)));
}
