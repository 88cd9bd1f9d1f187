// The page: what is to be done is done by `recorder.mjs`, what has happened is drawn by `stage.mjs`.
import { gather, outcome } from "./diagram.mjs";
import { Recorder } from "./recorder.mjs";
import { SCENARIOS } from "./scenarios.mjs";
import { calm, clearPicture, mark, narrow, showPicture, showTime } from "./stage.mjs";

/** Beyond a window, so that it has surely passed, in seconds. */
const MARGIN = 0.25;

const $ = (id) => document.getElementById(id);
/** An element with these properties and children. */
function make(name, properties = {}, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
}

const state = {
  settings: undefined,
  account: undefined,
  recorder: undefined,
  /** The device that acts. */
  acting: undefined,
  /** What the server last said of the account's sessions. */
  listed: [],
  /** The scenario that is being played. */
  playing: undefined,
};

start().catch((error) => say(`The settings of the server could not be read: ${error.message}`, true));

async function start() {
  const response = await fetch("/dev/settings");
  if (!response.ok) throw new Error(`status ${response.status}`);
  const { realms } = await response.json();
  state.settings = realms[0];
  showSettings(realms);
  prepareScenarios();
  listen();
  reset();
  narrow.addEventListener("change", show);
  addEventListener("resize", show);
  requestAnimationFrame(tick);
}

/** Everything anew, for this account. */
function reset(account) {
  state.account = account;
  state.listed = [];
  state.acting = undefined;
  const began = performance.now();
  state.recorder = new Recorder({
    origin: "",
    settings: state.settings,
    now: () => performance.now() - began,
    changed: () => show(),
  });
  clearPicture();
  $("exchanges").replaceChildren();
  show();
}

function say(text, bad = false) {
  $("status").textContent = text;
  $("status").classList.toggle("bad", bad);
}

// What can be done

function listen() {
  $("demo").addEventListener("click", () =>
    act(async () => {
      reset(somebody());
      await enter("signUp");
    }),
  );
  $("account").addEventListener("submit", (event) => {
    event.preventDefault();
    const [email, password] = [$("email").value, $("password").value];
    act(async () => {
      reset({ email, password });
      await enter(event.submitter.value);
    });
  });
  $("own-sign-up").hidden = !state.settings.registerable;
  $("demo").hidden = !state.settings.registerable;
  $("own").open = !state.settings.registerable;
  $("another").addEventListener("click", () => act(() => enter("signIn")));
  $("over").addEventListener("click", () => {
    reset();
    say("Sign in, or play one of the diagrams above.");
    // Once it is there.
    queueMicrotask(() => (state.settings.registerable ? $("demo") : $("email")).focus());
  });
  $("list").addEventListener("click", () => act(list));
  $("actions").addEventListener("click", (event) => {
    const deed = event.target.closest("[data-act]")?.dataset.act;
    if (deed) act(() => DEEDS[deed](state.acting));
  });
  $("copy").addEventListener("click", () =>
    navigator.clipboard.writeText($("curl").textContent).then(
      () => say("Copied."),
      () => say("The browser does not let this page copy.", true),
    ),
  );
  $("sheet").addEventListener("click", (event) => {
    const number = event.target.closest("[data-exchange]")?.dataset.exchange;
    if (number) choose(number);
  });
}

const DEEDS = {
  async get(device) {
    tell(device, await device.get());
  },
  async batch(device) {
    const count = Math.min(20, Math.max(2, Math.round(Number($("size").value)) || 5));
    $("size").value = count;
    const answers = await device.batch(count);
    const tokens = answers.filter((answer) => answer.handedOut).map((answer) => answer.handedOut);
    const blank = answers.filter((answer) => answer.blank).length;
    const refused = answers.filter((answer) => answer.code).length;
    const said = tokens.length
      ? `${tokens.length === 1 ? "One answer" : `${tokens.length} answers`} carried token ${[...new Set(tokens)].join(", ")}`
      : "No answer carried a token";
    say(
      `${count} requests at once with the same token. ${said}, ${blank} ${blank === 1 ? "was" : "were"} blank${refused ? `, ${refused} refused` : ""}.`,
      refused > 0,
    );
  },
  async slow(device) {
    say("A request that takes 3 seconds, and two quick ones beside it.");
    const [slow] = await Promise.all([device.slow(3), device.batch(2)]);
    tell(device, slow, "The slow one: ");
  },
  async replay(device) {
    tell(device, await device.replay(Number($("old").value)));
  },
  async lose(device) {
    const answer = await device.lose();
    if (answer.handedOut > device.held)
      say(`The answer carried token ${answer.handedOut} and was lost: ${device.name} still holds token ${device.held}.`, true);
    else say("The answer was lost. It carried nothing new.");
  },
  async ask(device) {
    tell(device, await device.askAgain());
  },
  async signOut(device) {
    const answer = await device.signOut();
    if (answer.status === 200) say(`${device.name} is signed out: none of its tokens is accepted any more.`);
    else tell(device, answer);
  },
};

/** Says in a sentence what an answer means. */
function tell(device, answer, before = "") {
  const { handedOut, blank, status, code, json } = answer;
  if (status === 0) return say(`${before}There was no answer: ${answer.error}`, true);
  if (code) return say(`${before}Refused: ${code}. ${json?.errors?.[0] ?? ""}`, true);
  if (handedOut) return say(`${before}${status}, with token ${handedOut}.`);
  if (blank) return say(`${before}${status}, without a new token: ${device.name} goes on with token ${device.held}.`);
  const errors = json?.errors?.full_messages ?? json?.errors ?? [];
  say(`${before}${status}. ${Array.isArray(errors) ? errors.join(" ") : ""}`, status >= 400);
}

/** Opens a device with the account. */
async function enter(how) {
  const { recorder } = state;
  const device = recorder.device();
  const answer = await device[how](state.account);
  // Somebody has begun anew meanwhile.
  if (recorder !== state.recorder) return false;
  if (device.token) {
    state.acting = device;
    say(`${device.name} is ${how === "signUp" ? "signed up" : "signed in"} as ${device.uid} and holds token 1.`);
    return true;
  }
  if (answer.status < 300 && state.settings.cookie_only && state.settings.cookie_enabled) {
    say("The token came in a cookie, where no script sees it. To watch it, start the server with --set cookie_only=false.", true);
  } else if (answer.status < 300 && state.settings.confirmable) {
    say(
      "The address has to be confirmed first: the letter is in the mailbox. Follow its link, then sign in with an account of your own.",
      true,
    );
  } else tell(device, answer);
  return false;
}

async function list() {
  const list = await state.acting.sessions();
  if (list) {
    state.listed = list;
    say(`The server knows ${list.length} ${list.length === 1 ? "device" : "devices"} of this account.`);
  } else tell(state.acting, state.recorder.exchanges.at(-1));
}

async function end(id, name) {
  const answer = await state.acting.end(id);
  if (answer.status !== 200) return tell(state.acting, answer);
  state.listed = state.listed.filter((session) => session.id !== id);
  say(`${name} is signed out.${state.acting.client === id ? "" : " It learns of it with its next request."}`);
}

/** Somebody whom nobody knows, with a password that nobody can guess. */
function somebody() {
  const random = (length) =>
    Array.from(crypto.getRandomValues(new Uint8Array(length)), (byte) => (byte % 36).toString(36)).join("");
  const { min_length, max_length } = state.settings.password;
  return { email: `demo-${random(6)}@example.com`, password: random(Math.min(max_length, Math.max(min_length, 24))) };
}

async function act(deed) {
  if (state.playing) return;
  try {
    await deed();
  } catch (error) {
    say(String(error), true);
  }
  show();
}

// Scenarios

function prepareScenarios() {
  const stop = make("button", { type: "button", id: "stop", className: "quiet", textContent: "Stop", hidden: true });
  stop.addEventListener("click", () => {
    state.playing?.abort();
    say("Stopped.");
  });
  for (const [name, { title, summary }] of Object.entries(SCENARIOS)) {
    const button = make("button", { type: "button", textContent: title, title: summary });
    button.dataset.scenario = name;
    button.disabled = !state.settings.registerable;
    button.addEventListener("click", () => play(name));
    $("scenarios").append(button);
  }
  $("scenarios").append(stop);
}

async function play(name) {
  state.playing?.abort();
  const playing = new AbortController();
  state.playing = playing;
  const goesOn = () => {
    if (playing.signal.aborted) throw playing.signal.reason;
  };
  reset(somebody());
  const { recorder } = state;
  try {
    if (!(await enter("signUp"))) return;
    const device = state.acting;
    await SCENARIOS[name].play({
      device,
      say(text) {
        goesOn();
        say(text);
      },
      async pause(seconds) {
        await sleep(seconds, playing.signal);
      },
      async windowPasses() {
        await sleep(Math.max(0, device.windowUntil - recorder.now()) / 1000 + MARGIN, playing.signal);
        goesOn();
      },
    });
  } catch (error) {
    if (!playing.signal.aborted) say(String(error), true);
  } finally {
    if (state.playing === playing) state.playing = undefined;
    show();
  }
}

function sleep(seconds, signal) {
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const timer = setTimeout(resolve, seconds * 1000);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}

// What is seen

let asked = false;
/** Once, for all that has happened by then. */
function show() {
  if (asked) return;
  asked = true;
  queueMicrotask(() => {
    asked = false;
    showPicture(state);
    showWindow();
    showControls();
    showExchanges();
    showDevices();
    showTerminal();
  });
}

/** Time runs. */
function tick() {
  showTime(state.recorder);
  showWindow();
  if (calm.matches) setTimeout(() => requestAnimationFrame(tick), 500);
  else requestAnimationFrame(tick);
}

/** What will become of the next request. */
function showWindow() {
  const { recorder, acting, settings } = state;
  const rest = acting?.signedIn ? (acting.windowUntil - recorder.now()) / 1000 : 0;
  let text = "";
  if (rest > 0) text = `Batch window open, ${rest.toFixed(1)} s to go`;
  else if (acting?.signedIn && !settings.change_headers_on_each_request) text = "Tokens do not change here";
  else if (acting?.signedIn) text = "The next request is given a new token";
  if ($("window").textContent !== text) $("window").textContent = text;
  $("window").classList.toggle("open", rest > 0);
}

function showControls() {
  const { recorder, acting, playing } = state;
  const devices = recorder.devices.filter((device) => device.token);
  // Whoever goes by the keyboard is not to be thrown back to the beginning by what goes away.
  const { activeElement } = document;
  const [left, stopped] = [$("enter").contains(activeElement) && devices.length > 0, activeElement === $("stop") && !playing];
  $("stop").hidden = !playing;
  $("enter").hidden = devices.length > 0;
  $("acting").hidden = devices.length === 0;
  $("demo").disabled = Boolean(playing);
  for (const control of $("acting").querySelectorAll("button, input, select")) control.disabled = Boolean(playing);
  $("list").disabled = Boolean(playing) || !acting;
  if (left) $("actions").querySelector("button").focus();
  if (stopped) $("scenarios").querySelector("button").focus();

  const who = $("who");
  const focused = who.contains(document.activeElement) ? document.activeElement.dataset.device : undefined;
  who.replaceChildren(
    ...devices.map((device) => {
      const button = make("button", {
        type: "button",
        textContent: `${device.name}${device.ended ? " (over)" : ""}`,
        disabled: Boolean(playing),
      });
      button.dataset.device = device.number;
      button.setAttribute("aria-pressed", String(device === acting));
      button.addEventListener("click", () => {
        state.acting = device;
        say(`You act as ${device.name}, which holds token ${device.held}.`);
        show();
      });
      return button;
    }),
  );
  if (focused) who.querySelector(`[data-device="${focused}"]`)?.focus();

  const old = $("old");
  const numbers = acting ? [...acting.tokens.keys()].sort((a, b) => a - b) : [];
  const key = `${acting?.number}: ${numbers}`;
  if (old.dataset.key !== key) {
    const followed = !old.value || Number(old.value) === Number(old.dataset.before);
    const chosen = old.value;
    old.replaceChildren(...numbers.map((number) => make("option", { value: number, textContent: number })));
    const before = Math.max(1, (acting?.held ?? 1) - 1);
    old.dataset.before = before;
    old.value = followed || !numbers.includes(Number(chosen)) ? before : chosen;
    old.dataset.key = key;
  }
}

const items = new Map();
function showExchanges() {
  const { recorder } = state;
  const ended = new Map(gather(recorder.events).map((exchange) => [exchange.number, exchange]));
  $("no-exchanges").hidden = recorder.exchanges.length > 0;
  if ($("exchanges").childElementCount === 0) items.clear();
  for (const exchange of recorder.exchanges) {
    const { token, answer } = ended.get(exchange.number);
    let item = items.get(exchange.number);
    if (!item) {
      item = make("li", {}, make("details", {}, make("summary"), make("div", { className: "raw" })));
      item.firstChild.addEventListener("toggle", () => mark(exchange.number, item.firstChild.open));
      items.set(exchange.number, item);
      $("exchanges").prepend(item);
    }
    if (item.dataset.answered === String(Boolean(answer))) continue;
    item.dataset.answered = String(Boolean(answer));
    const [summary, raw] = item.firstChild.children;
    summary.replaceChildren(
      make("span", { className: "no", textContent: exchange.number }),
      ...(recorder.devices.length > 1 ? [make("span", { className: "device", textContent: `Device ${exchange.device}` })] : []),
      make(
        "span",
        { className: "path" },
        badge(token, "with token "),
        make("span", { ariaHidden: "true", textContent: "→" }),
        badge(answer?.token ?? null, "answered with token "),
      ),
      make("span", { className: "what" }, `${exchange.method} ${exchange.path}`),
      make("span", { className: "note", textContent: exchange.note }),
      make("span", {
        className: `said${!answer || (answer.status < 400 && answer.status > 0 && !answer.lost) ? "" : " bad"}`,
        textContent: outcome(answer).replace(/, (token \d+|no new token)/, ""),
      }),
      make("span", { className: "ms", textContent: answer ? `${Math.round(exchange.took)} ms` : "" }),
    );
    raw.replaceChildren(
      ...part(
        "Request, with the headers of this page",
        [`${exchange.method} ${exchange.path}`],
        Object.entries(exchange.request),
      ),
      ...(answer
        ? part(
            exchange.lose ? "Response, which the device did not see" : "Response",
            [String(exchange.status || exchange.error)],
            exchange.response ?? [],
            exchange.body,
          )
        : []),
    );
  }
}

/** A token in a text, and for those who hear it what it is there. */
function badge(token, before) {
  const [kind, text, said] = token === null ? ["badge none", "–", "none"] : [`badge diagram t${token % 6}`, token, ""];
  return make(
    "span",
    { className: kind },
    make("span", { className: "hidden", textContent: before + said }),
    ...(said ? [make("span", { ariaHidden: "true", textContent: text })] : [String(text)]),
  );
}

/** A message as it travels. */
function part(title, lines, headers, body = "") {
  const names = new Set(Object.values(state.settings.headers_names));
  const text = make("pre", {}, lines.join("\n"), "\n");
  for (const [name, value] of headers) text.append(names.has(name) ? make("b", {}, name) : name, `: ${value}\n`);
  if (body) text.append("\n", body.length > 4000 ? `${body.slice(0, 4000)}…` : body);
  return [make("div", {}, make("h3", { textContent: title }), text)];
}

/** Shows an exchange that was picked in the picture. */
function choose(number) {
  const item = items.get(Number(number));
  if (!item) return;
  item.firstChild.open = true;
  item.scrollIntoView({ block: "nearest", behavior: calm.matches ? "auto" : "smooth" });
  item.querySelector("summary").focus({ preventScroll: true });
}

function showDevices() {
  const { recorder, acting, listed, playing } = state;
  const own = recorder.devices.filter((device) => device.token);
  const others = listed.filter((session) => !own.some((device) => device.client === session.id));
  $("no-devices").hidden = own.length + others.length > 0;
  $("devices-table").hidden = own.length + others.length === 0;
  const focused = document.activeElement?.dataset?.end;
  const row = ({ id, name, held, session, ended }) => {
    const seen = session
      ? make("time", { dateTime: session.last_seen_at, textContent: new Date(session.last_seen_at).toLocaleTimeString() })
      : "–";
    const button = make("button", { type: "button", textContent: "End", ariaLabel: `End ${name}` });
    button.dataset.end = id;
    button.disabled = Boolean(playing) || !acting?.signedIn;
    button.addEventListener("click", () => act(() => end(id, name)));
    return make(
      "tr",
      {},
      make(
        "th",
        { scope: "row" },
        name,
        make("span", { className: "soft", title: session?.user_agent ?? "" }, ` ${session?.ip ?? ""}`),
      ),
      make("td", {}, held ? badge(held, "") : "–"),
      make("td", {}, seen),
      make("td", {}, make("span", { className: ended ? "over" : "live", textContent: ended || "signed in" })),
      make("td", {}, ...(ended ? [] : [button])),
    );
  };
  $("devices").replaceChildren(
    ...own.map((device) =>
      row({
        id: device.client,
        name: device.name,
        held: device.held,
        session: listed.find((session) => session.id === device.client),
        ended: device.ended,
      }),
    ),
    ...others.map((session) => row({ id: session.id, name: `Session ${session.id.slice(0, 6)}…`, session })),
  );
  if (focused) ($("devices").querySelector(`[data-end="${CSS.escape(focused)}"]`) ?? $("devices-table")).focus();
}

function showTerminal() {
  const { acting, settings } = state;
  const names = settings.headers_names;
  const quote = (text) => `'${text.replaceAll("'", "'\\''")}'`;
  $("curl").textContent = acting
    ? [
        "curl -i",
        ...[
          [names["access-token"], acting.token],
          [names.client, acting.client],
          [names.uid, acting.uid],
        ].map(([name, value]) => `-H ${quote(`${name}: ${value}`)}`),
        `${location.origin}/demo/members_only`,
      ].join(" \\\n  ")
    : `curl -i ${location.origin}${settings.mount} \\\n  -d email=me@example.com -d password='correct horse battery'`;
}

function showSettings(realms) {
  const { headers_names, password, ...plain } = state.settings;
  const renamed = Object.entries(headers_names).filter(([name, value]) => name !== value);
  const times = new Set(["batch_request_buffer_throttle", "token_lifespan", "session_max_lifetime"]);
  const values = [
    ...Object.entries(plain).map(([name, value]) => [name, times.has(name) ? duration(value) : String(value)]),
    ["password.min_length", password.min_length],
    ["password.max_length", password.max_length],
    ...renamed.map(([name, value]) => [`headers_names.${name}`, value]),
  ];
  $("settings").replaceChildren(
    ...values.flatMap(([name, value]) => [make("dt", { textContent: name }), make("dd", { textContent: value })]),
  );
  if (realms.length > 1)
    $("realms").append(
      "; for one realm each: ",
      ...realms.flatMap(({ realm }, index) => [
        index ? ", " : "",
        make("code", { textContent: `/demo/realms/${realm}/members_only` }),
      ]),
    );
}

function duration(seconds) {
  for (const [unit, length] of [
    ["days", 86400],
    ["h", 3600],
    ["min", 60],
  ])
    if (seconds >= length && seconds % length === 0) return `${seconds / length} ${unit}`;
  return `${seconds} s`;
}
