import { mkdir, readFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { fileURLToPath } from "node:url";
import { launch, type Browser, type Page } from "puppeteer-core";
import type { Baton, BatonOptions } from "baton-client";

declare global {
  interface Window {
    Baton: typeof Baton;
    baton: Baton;
    /** What the client has told of. */
    heard: [event: string, what: { code?: string; elsewhere: boolean; generation?: number }][];
  }
}

const root = (path: string) => fileURLToPath(new URL(`../../${path}`, import.meta.url));
const SHOTS = process.env["SCREENSHOTS"] ?? root("build/screenshots");

/** A headless Chromium. It ends with the test, since it hangs on a pipe. */
export function startBrowser(): Promise<Browser> {
  return launch({
    executablePath: process.env["CHROMIUM"] ?? "/usr/bin/chromium",
    pipe: true,
    headless: true,
    // A container has no sandbox of its own to give, and root may not use Chromium's.
    args: process.getuid?.() === 0 ? ["--no-sandbox", "--disable-dev-shm-usage"] : ["--disable-dev-shm-usage"],
  });
}

/** Serves a page with the client and nothing else, from an origin of its own. */
export async function startPages(): Promise<{ origin: string; stop: () => Promise<void> }> {
  const page = `<!doctype html><meta charset=utf-8><title>Client</title><link rel=icon href=data:,>
    <script type=module>import { Baton } from "/client/index.js"; window.Baton = Baton;</script>`;
  const http = createServer((request, response) => {
    const name = /^\/client\/([\w-]+\.js)$/.exec(request.url ?? "")?.[1];
    if (!name) return void response.writeHead(200, { "content-type": "text/html" }).end(page);
    readFile(root(`dist/${name}`)).then(
      (script) => response.writeHead(200, { "content-type": "text/javascript" }).end(script),
      () => response.writeHead(404).end(),
    );
  });
  await new Promise<void>((resolve) => http.listen(0, "127.0.0.1", resolve));
  const stop = () =>
    new Promise<void>((resolve) => {
      http.close(() => resolve());
      http.closeAllConnections();
    });
  // Another origin than that of the servers, and a secure context.
  return { origin: `http://localhost:${(http.address() as AddressInfo).port}`, stop };
}

/** Has a page load (again), with a client that writes down what it tells of. */
export async function load(page: Page, url: string, options: Omit<BatonOptions, "fetch">): Promise<void> {
  await page.goto(url);
  await page.waitForFunction(() => "Baton" in window);
  await page.evaluate((options) => {
    window.baton = new window.Baton(options);
    window.heard = [];
    for (const event of ["signedIn", "signedOut", "ended", "token"] as const) {
      window.baton.on(event, (what) => window.heard.push([event, what]));
    }
  }, options as BatonOptions);
}

/** Keeps a picture of the page. */
export async function shoot(page: Page, name: string): Promise<void> {
  await mkdir(SHOTS, { recursive: true });
  await page.screenshot({ path: `${SHOTS}/${name}.png`, fullPage: true });
}
