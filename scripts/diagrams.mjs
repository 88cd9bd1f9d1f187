// See scripts/diagrams. Runs differ in their tokens, in how long an answer takes, and in which of several requests that are alike
// is given the new token. What is written has none of that: tokens have numbers, only what was waited for takes time, and of
// requests that are alike the first is given the token.
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { startBaton } from "../clients/typescript/build/support/baton.js";
import { draw, gather, sentence } from "../crates/server/src/playground/diagram.mjs";
import { Recorder } from "../crates/server/src/playground/recorder.mjs";
import { SCENARIOS } from "../crates/server/src/playground/scenarios.mjs";

/** Beyond a window, in seconds. */
const MARGIN = 0.25;

const [option, ...others] = process.argv.slice(2);
if (others.length || (option && option !== "--check")) {
  console.error(`unknown option: ${others[0] ?? option}`);
  process.exit(2);
}
const path = (name) => fileURLToPath(new URL(`../${name}`, import.meta.url));
const style = (await readFile(path("crates/server/src/playground/diagram.css"), "utf8")).replace(/\s+/g, " ").trim();

const files = new Map();
const server = await startBaton();
try {
  const { realms } = await (await fetch(`${server.origin}/dev/settings`)).json();
  await Promise.all(
    Object.entries(SCENARIOS).map(async ([name, scenario]) => {
      const events = normal(await play(name, scenario, realms[0], server.origin));
      const { svg } = draw(events, {
        window: realms[0].batch_request_buffer_throttle,
        names: { 1: "Client" },
        tail: 1,
        title: scenario.title,
        style,
      });
      const said = gather(events).map((exchange) => `${exchange.number}: ${sentence(exchange)}`);
      files.set(`${name}.json`, `{\n"exchanges": [\n${lines(said)}\n],\n"events": [\n${lines(events)}\n]\n}\n`);
      files.set(`${name}.svg`, svg);
    }),
  );
} finally {
  await server.stop();
}

if (option === "--check") {
  const changed = [];
  for (const [name, text] of files) {
    const kept = await readFile(path(`docs/diagrams/${name}`), "utf8").catch(() => "");
    if (kept === text) continue;
    changed.push(name);
    if (name.endsWith(".json")) console.error(`docs/diagrams/${name} says\n${kept}but what happens is\n${text}`);
  }
  if (changed.length) {
    console.error(`not what happens: ${changed.join(", ")}. If that is right: ./scripts/diagrams`);
    process.exit(1);
  }
} else {
  await mkdir(path("docs/diagrams"), { recursive: true });
  for (const [name, text] of files) await writeFile(path(`docs/diagrams/${name}`), text);
}
console.log(`${files.size / 2} diagrams ${option ? "are what happens" : "written"}`);

/** Plays a scenario by a clock that stands still except where it waits. */
async function play(name, scenario, settings, origin) {
  let now = 0;
  const sleep = async (seconds) => {
    await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
    now += seconds * 1000;
  };
  const recorder = new Recorder({ origin, settings, now: () => now });
  const device = recorder.device();
  const { status, body } = await device.signUp({ email: `${name}@example.com`, password: "correct horse battery" });
  if (status !== 200) throw new Error(`${name}: ${status} ${body}`);
  await scenario.play({
    device,
    say() {},
    pause: sleep,
    windowPasses: () => sleep(Math.max(0, device.windowUntil - now) / 1000 + MARGIN),
  });
  for (const exchange of recorder.exchanges.filter((exchange) => exchange.takes)) {
    const of = (type) => recorder.events.find((event) => event.type === type && event.exchange === exchange.number);
    of("received").at = of("sent").at + exchange.takes * 1000;
  }
  return recorder.events;
}

/** In order, and with the best answer to the first of several requests that are alike and were sent at once. */
function normal(recorded) {
  const events = [...recorded].sort((a, b) => a.at - b.at);
  const alike = [];
  let before;
  for (const event of events) {
    const is = (name) => before?.[name] === event[name];
    if (event.type === "sent" && is("type") && is("token") && is("what") && is("note")) alike.at(-1).push(event.exchange);
    else if (event.type === "sent") alike.push([event.exchange]);
    before = event;
  }
  for (const group of alike) {
    const answers = events.filter((event) => event.type === "received" && group.includes(event.exchange));
    const best = answers.map(({ exchange, ...rest }) => rest).sort((a, b) => (b.token ?? 0) - (a.token ?? 0));
    answers.forEach((answer, index) => Object.assign(answer, best[index], { exchange: group[index] }));
  }
  return events;
}

function lines(list) {
  return list.map((item) => JSON.stringify(item)).join(",\n");
}
