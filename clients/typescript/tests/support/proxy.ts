import {
  createServer,
  request as forward,
  type IncomingHttpHeaders,
  type IncomingMessage,
  type ServerResponse,
} from "node:http";
import type { AddressInfo } from "node:net";
import { generation } from "../../dist/index.js";

/** What becomes of a request. */
export type Fate =
  /** It is answered. */
  | "pass"
  /** The server answers, and the connection breaks before the answer is out. */
  | "lose"
  /** The connection breaks before the server has heard of it. */
  | "cut"
  /** The gateway answers with this status in the place of the server, which has not heard of it. */
  | number
  /** The server answers, and the gateway answers with this in its place. */
  | { instead: number; headers?: Record<string, string>; keep?: boolean };

/** A request that came by. */
export interface Seen {
  method: string;
  path: string;
  query: string;
  /** Generation of the token that it presented; 0 without one. */
  presented: number;
  /** Status of the server's answer; 0 if it was not asked. */
  status: number;
  /** Generation of the token that the server's answer carried; 0 without one. */
  handedOut: number;
  /** Headers of the server's answer. */
  headers: IncomingHttpHeaders;
  /** Why the server has refused it: the `code` in the answer's body, which is there when the body has gone out. */
  code: string;
}

/** A gateway in front of a server, which does to requests what a test wants. */
export interface Proxy {
  origin: string;
  url: string;
  seen: Seen[];
  /** Decides, once the request is there; it may take its time. */
  fate: (request: Seen) => Fate | Promise<Fate>;
  /** Called when the server has answered, before the answer goes out. */
  answered: (request: Seen) => void | Promise<void>;
  stop(): Promise<void>;
}

/** Starts one in front of `target`, on a free port. */
export async function startProxy(target: string): Promise<Proxy> {
  const http = createServer((incoming, outgoing) => void serve(proxy, target, incoming, outgoing));
  await new Promise<void>((resolve) => http.listen(0, "127.0.0.1", resolve));
  const origin = `http://127.0.0.1:${(http.address() as AddressInfo).port}`;
  const proxy: Proxy = {
    origin,
    url: `${origin}/auth`,
    seen: [],
    fate: () => "pass",
    answered: () => {},
    stop: () =>
      new Promise((resolve) => {
        http.close(() => resolve());
        http.closeAllConnections();
      }),
  };
  return proxy;
}

async function serve(proxy: Proxy, target: string, incoming: IncomingMessage, outgoing: ServerResponse) {
  const { pathname, search } = new URL(incoming.url ?? "/", target);
  const presented = presentedBy(incoming);
  const method = incoming.method ?? "";
  const seen: Seen = { method, path: pathname, query: search, presented, status: 0, handedOut: 0, headers: {}, code: "" };
  const isPreflight = seen.method === "OPTIONS";
  if (!isPreflight) proxy.seen.push(seen);
  const fate = isPreflight ? "pass" : await proxy.fate(seen);
  if (fate === "cut") return void outgoing.destroy();
  if (typeof fate === "number") return void outgoing.writeHead(fate, fromGateway(incoming)).end("the gateway's own words");

  const answer = await new Promise<IncomingMessage>((resolve, reject) => {
    const { method, headers } = incoming;
    incoming.pipe(forward(target + (incoming.url ?? ""), { method, headers, agent: false }, resolve).on("error", reject));
  });
  seen.status = answer.statusCode ?? 0;
  seen.headers = answer.headers;
  seen.handedOut = generation(String(answer.headers["access-token"] ?? ""));
  if (!isPreflight) await proxy.answered(seen);
  if (fate === "lose") return void outgoing.destroy();
  if (seen.status >= 400) noteCode(answer, seen);
  if (fate === "pass") return void answer.pipe(outgoing.writeHead(seen.status, answer.headers));
  answer.resume();
  const kept = fate.keep ? answer.headers : fromGateway(incoming);
  delete kept["content-length"];
  outgoing.writeHead(fate.instead, { ...kept, ...fate.headers }).end();
}

function noteCode(answer: IncomingMessage, seen: Seen) {
  let body = "";
  answer.on("data", (chunk) => (body += String(chunk)));
  answer.on("end", () => {
    seen.code = /"code":"(\w+)"/.exec(body)?.[1] ?? "";
  });
}

function presentedBy({ headers }: IncomingMessage): number {
  const encoded = headers.authorization?.replace(/^Bearer /, "");
  const fields = encoded ? (JSON.parse(Buffer.from(encoded, "base64").toString()) as Record<string, string>) : headers;
  return generation(String(fields["access-token"] ?? ""));
}

/** A gateway that answers itself lets pages read that. */
function fromGateway({ headers }: IncomingMessage): Record<string, string | string[] | undefined> {
  return { "access-control-allow-origin": headers.origin ?? "*", "access-control-allow-credentials": "true" };
}
