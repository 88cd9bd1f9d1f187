import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

/** A `baton dev` of a test's own. */
export interface Server {
  origin: string;
  /** The auth routes. */
  url: string;
  stop(): Promise<void>;
}

const BINARY = process.env["BATON"] ?? fileURLToPath(new URL("../../../../target/debug/baton", import.meta.url));

/**
 * A shell that runs the command after its first argument as long as the pipe from the test is open, and takes the folder that
 * is its first argument along: however the test ends.
 */
const WATCH = `trap : TERM INT HUP; folder=$1; shift; TMPDIR=$folder "$@" </dev/null & server=$!
  cat >/dev/null; kill "$server"; wait "$server"; rm -rf "$folder"`;

/** Starts a program that says which address it is "listening on". It is given an empty folder, its `TMPDIR`, and keeps it until it is stopped. */
export async function startProgram(command: (folder: string) => string[]): Promise<{ origin: string; stop(): Promise<void> }> {
  const folder = await mkdtemp(join(tmpdir(), "baton-client-"));
  const [program = "", ...rest] = command(folder);
  const child = spawn("sh", ["-c", WATCH, "sh", folder, program, ...rest], { stdio: ["pipe", "pipe", "pipe"] });
  let said = "";
  child.stderr.on("data", (chunk) => (said += String(chunk)));
  const ended = new Promise<void>((resolve) => child.on("close", () => resolve()));
  const stop = () => {
    child.stdin.end();
    return ended;
  };
  for await (const line of createInterface(child.stdout)) {
    const origin = /^listening on (\S+)/.exec(line)?.[1];
    if (origin) return { origin, stop };
  }
  throw new Error(`${program} did not start: ${said}`);
}

/** Starts a server with these settings, on a free port and an empty folder. */
export async function startBaton(...settings: string[]): Promise<Server> {
  if (!existsSync(BINARY)) throw new Error(`no ${BINARY}: cargo build -p baton-server, or set BATON`);
  const options = ["log.level=warn", ...settings].flatMap((setting) => ["--set", setting]);
  const server = await startProgram((folder) => [
    BINARY,
    "dev",
    ...["--listen", "127.0.0.1:0", "--data-dir", join(folder, "data")],
    ...options,
  ]);
  return { ...server, url: `${server.origin}/auth` };
}

/** The link in the newest letter to this address, once it is there. */
export async function linkInLetter(server: Server, to: string): Promise<string> {
  for (;;) {
    const { mails } = (await (await fetch(`${server.origin}/dev/mailbox.json`)).json()) as {
      mails: { to: string; link: string | null }[];
    };
    const link = mails.find((mail) => mail.to.includes(to))?.link;
    if (link) return link;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

let people = 0;

/** An address that nobody has yet. */
export function somebody(): { email: string; password: string } {
  people += 1;
  return { email: `somebody-${process.pid}-${people}@example.com`, password: "correct horse battery" };
}

/** Until a window of so many seconds has passed. What is done then is not hurried: it has only to be late enough. */
export function windowPasses(seconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, seconds * 1000 + 150));
}
