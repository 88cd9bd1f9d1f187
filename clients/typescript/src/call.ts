/** A request that may have to be sent more than once. */
export interface Call {
  readonly url: URL;
  /** Sending it twice changes nothing more than sending it once (RFC 9110 §9.2.1). */
  readonly safe: boolean;
  /** Its body, if it has one, can be sent again. */
  readonly replayable: boolean;
  readonly signal: AbortSignal | undefined;
  /** A 404 of it may mean that nobody is signed in. */
  readonly hidesRefusals: boolean;
  /** The request itself. With `unbatch` it asks for the current token where it can. */
  request(unbatch: boolean): Request;
}

/** A call from what was given to `fetch`. A relative address counts from `base`. */
export function call(input: RequestInfo | URL, init: RequestInit | undefined, base: URL, hidesRefusals = false): Call {
  const source = input instanceof Request ? new Request(input, init) : undefined;
  const url = new URL(source ? source.url : String(input), base);
  const method = (source?.method ?? init?.method ?? "GET").toUpperCase();
  const safe = method === "GET" || method === "HEAD";
  const signal = source?.signal ?? init?.signal ?? undefined;
  return {
    url,
    safe,
    replayable: !(init?.body instanceof ReadableStream),
    signal,
    hidesRefusals,
    request(unbatch) {
      if (!source) return new Request(unbatch ? unbatched(url) : url, init);
      // The body of a request object cannot be moved to another address everywhere.
      return unbatch && safe ? new Request(unbatched(url), source) : source.clone();
    },
  };
}

/** With `unbatch=true`; the rest of the query as it was written. */
function unbatched(url: URL): URL {
  const asked = new URL(url);
  asked.search += `${asked.search ? "&" : "?"}unbatch=true`;
  return asked;
}
