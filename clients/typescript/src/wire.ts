import { generation, type Session } from "./session.js";

/** Names of the auth headers, where the server has others (`[headers_names]`). */
export interface HeaderNames {
  "access-token": string;
  client: string;
  uid: string;
  expiry: string;
  "token-type": string;
  authorization: string;
}

export const HEADER_NAMES: HeaderNames = {
  "access-token": "access-token",
  client: "client",
  uid: "uid",
  expiry: "expiry",
  "token-type": "token-type",
  authorization: "authorization",
};

/**
 * Adds a session's credentials to a request.
 *
 * They go into `Authorization`: unlike headers of our own it is dropped when a redirect leads to another origin, shared caches
 * do not keep the answer to it, and a uid may hold any letter. A request that has one already gets the three headers instead.
 */
export function present(session: Session, headers: Headers, names: HeaderNames): void {
  const fields = {
    [names["access-token"]]: session.token,
    [names["token-type"]]: "Bearer",
    [names.client]: session.client,
    [names.uid]: session.uid,
  };
  if (!headers.has(names.authorization)) {
    headers.set(names.authorization, `Bearer ${btoa(toBytes(JSON.stringify(fields)))}`);
    return;
  }
  for (const [name, value] of Object.entries(fields)) headers.set(name, toBytes(value));
}

/** What the auth headers of a response say; `undefined` if it has none. Of a batch answer token and expiry are blank. */
export function heard(headers: Headers, names: HeaderNames): Session | undefined {
  const get = (name: string) => headers.get(name)?.trim() ?? "";
  const client = get(names.client);
  if (!client) return undefined;
  const token = get(names["access-token"]);
  return {
    client,
    uid: fromBytes(get(names.uid)),
    token: generation(token) > 0 ? token : "",
    expiry: Number(get(names.expiry)) || 0,
  };
}

/** Text as the bytes of its UTF-8, a character each: all that a header can hold. */
function toBytes(text: string): string {
  return String.fromCharCode(...new TextEncoder().encode(text));
}

function fromBytes(bytes: string): string {
  return new TextDecoder().decode(Uint8Array.from(bytes, (byte) => byte.charCodeAt(0)));
}
