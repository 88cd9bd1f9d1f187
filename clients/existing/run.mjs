// Runs every client against `baton dev` in Chromium and writes the table in docs/clients.md. With --check: whether that is there.
import { readFile, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { somebody, startBaton } from "../typescript/build/support/baton.js";
import { startBrowser } from "../typescript/build/support/browser.js";
import { startProxy } from "../typescript/build/support/proxy.js";
import { checks, Finding, NOT_THERE, WINDOW } from "./checks.mjs";
import { clients } from "./clients.mjs";
import { startPages } from "./pages.mjs";

const DOCUMENT = fileURLToPath(new URL("../../docs/clients.md", import.meta.url));
const [BEGIN, END] = ["<!-- written by scripts/clients-existing -->\n", "<!-- end -->\n"];
/** No check takes nearly as long, in milliseconds. */
const LIMIT = 90_000;

const pages = await startPages(clients);
const browser = await startBrowser();
const servers = new Map();
let rows;
try {
  const settings = new Map(clients.flatMap((client) => client.settings.map((lines) => [String(lines), lines])));
  await Promise.all([...settings].map(async ([key, lines]) => servers.set(key, await startServer(lines))));
  // All at once, since they wait most of the time.
  rows = await Promise.all(clients.flatMap((client) => client.settings.map((lines) => run(client, lines))));
} finally {
  await Promise.all([browser.close(), pages.stop(), ...[...servers.values()].map((server) => server.stop())]);
}
await compare(rows);

function startServer(lines) {
  const origin = JSON.stringify([pages.origin]);
  return startBaton(
    `batch_request_buffer_throttle=${WINDOW}s`,
    `server.allowed_origins=${origin}`,
    `redirect_allowlist=${origin}`,
    // `baton dev` would let any page of this machine in.
    "server.allowed_localhost_origins=false",
    "redirect_allow_localhost=false",
    ...lines.map((line) => line.replace(" = ", "=")),
  );
}

/** One check after the other, with one client and these settings, in a profile of the browser of its own. */
async function run(client, lines) {
  const server = servers.get(String(lines));
  const proxy = await startProxy(server.origin);
  const context = await browser.createBrowserContext();
  const row = { ...client, lines, results: {} };
  try {
    const open = () => newPage(context, client, proxy.origin);
    const page = await open();
    const who = somebody();
    await register(server, who);
    for (const [name, check] of Object.entries(checks)) {
      Object.assign(proxy, { seen: [], fate: () => "pass", answered: () => {} });
      row.results[name] = await outcome(check({ page, open, proxy, who, server }), proxy).catch((cause) => {
        throw new Error(`${client.page}, ${lines.join(", ") || "defaults"}: ${name}`, { cause });
      });
      await page.forget();
    }
    return row;
  } finally {
    await context.close();
    await proxy.stop();
  }
}

/** What came of a check: why it failed is the `code` of what the server refused last, or what the client did. */
async function outcome(check, proxy) {
  try {
    const said = await within(LIMIT, check);
    return { passed: true, cell: said === NOT_THERE ? "–" : "yes" };
  } catch (error) {
    if (!(error instanceof Finding)) throw error;
    const code = proxy.seen.findLast((request) => request.code)?.code;
    return { passed: false, cell: `no: ${code ? `\`${code}\`` : error.message}`, finding: error.message, seen: proxy.seen };
  }
}

async function register(server, who) {
  const answer = await fetch(server.url, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(who),
  });
  if (!answer.ok) throw new Error(`a registration is answered ${answer.status}`);
}

/** A tab for a client's page that calls this server. */
async function newPage(context, client, api) {
  const url = `${pages.origin}/${client.page}/`;
  const tab = await context.newPage();
  const devtools = await tab.createCDPSession();
  await tab.evaluateOnNewDocument((api) => {
    window.api = api;
  }, api);
  const doAtOnce = async (count, method, ...rest) => {
    const { values, fault } = await tab.evaluate(
      async (count, method, rest) => {
        try {
          return { values: await Promise.all(Array.from({ length: count }, () => window.client[method](...rest))) };
        } catch (error) {
          return { fault: String(error?.reason ?? error?.message ?? error) };
        }
      },
      count,
      method,
      rest,
    );
    if (fault !== undefined) throw new Finding(fault);
    return values;
  };
  return {
    /** Loads it, or loads it again. */
    async load() {
      await tab.goto(url);
      await tab.waitForFunction(() => "client" in window, { polling: 20 });
    },
    /** Follows a link that leads to it. */
    async land(link) {
      await tab.goto(link);
      const isThere = (reloads) => "client" in window && !(reloads && new URLSearchParams(location.search).has("token"));
      await tab.waitForFunction(isThere, { polling: 20 }, client.reloads);
    },
    /** Forgets what was stored, at the end of a check. */
    async forget() {
      // By the page itself: what it has just written would come after what the browser forgets.
      await tab.evaluate(() => localStorage.clear());
      await devtools.send("Storage.clearDataForOrigin", { origin: pages.origin, storageTypes: "cookies" });
    },
    close: () => tab.close(),
    /** Who is signed in when the page has loaded, in the eyes of the client. */
    finds: () => tab.evaluate(() => window.client.ready),
    /** What the client does: so many times at the same time. A finding if it says that it went wrong. */
    doAtOnce,
    does: async (method, ...rest) => (await doAtOnce(1, method, ...rest))[0],
    /** The same without waiting for it. */
    starts: (method, ...rest) => tab.evaluate((method, rest) => void window.client[method](...rest), method, rest),
    /** Whether the client can do that. */
    has: (method) => tab.evaluate((method) => method in window.client, method),
  };
}

async function within(limit, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`takes longer than ${limit / 1000} s`)), limit);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

function tableOf(rows) {
  const columns = Object.keys(checks);
  const lines = rows.map(({ name, version, note, lines, results }) => [
    [`${name} ${version}`, note].filter(Boolean).join(", "),
    lines.length ? lines.map((setting) => `\`${setting}\``).join(", ") : "the defaults",
    ...columns.map((column) => results[column].cell),
  ]);
  const head = ["client", "settings", ...columns];
  return [head, head.map(() => "---"), ...lines].map((cells) => `| ${cells.join(" | ")} |\n`).join("");
}

async function compare(rows) {
  const document = await readFile(DOCUMENT, "utf8");
  const [start, end] = [document.indexOf(BEGIN) + BEGIN.length, document.indexOf(END)];
  const [there, table] = [document.slice(start, end), tableOf(rows)];
  if (there === table) return;
  if (!process.argv.includes("--check")) return writeFile(DOCUMENT, document.slice(0, start) + table + document.slice(end));
  for (const line of table.split("\n").filter((line) => !there.includes(`${line}\n`))) console.error(line);
  for (const { page, lines, results } of rows) {
    for (const [check, { passed, finding, seen }] of Object.entries(results)) {
      if (passed) continue;
      console.error(`\n${page}, ${lines.join(", ") || "the defaults"}: ${check}: ${finding}`);
      for (const { method, path, presented, status, code, handedOut } of seen) {
        console.error(`  ${method} ${path} with token ${presented}: ${status} ${code} with token ${handedOut}`);
      }
    }
  }
  throw new Error("docs/clients.md says something else than what the clients did; above, the lines that it lacks, and what has failed");
}
