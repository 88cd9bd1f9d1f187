import type { Session } from "./session.js";

/** Where a session is kept between requests. */
export interface Storage {
  /**
   * Under which name others share what is kept here: all clients (tabs) with the same name see the same session. Empty if
   * nobody else can see it.
   */
  readonly shared: string;
  /** What is kept, `null` if nothing is, `undefined` if that cannot be told: then what the client remembers is good. */
  read(): Session | null | undefined;
  /** Keeps this session, or none. Must not throw. */
  write(session: Session | null): void;
}

/** Keeps the session as long as the page or the process lives, for this client alone. */
export function memoryStorage(): Storage {
  let kept: Session | null = null;
  return {
    shared: "",
    read: () => kept,
    write: (session) => {
      kept = session;
    },
  };
}

/**
 * Keeps the session in `localStorage` under `key`: it survives a reload, and the tabs of an origin share it. Any script of
 * the page's origin can read it; where that matters and page and server are of one site, use the cookie.
 *
 * Where there is no `localStorage`, or it is full or forbidden, the session is kept in memory.
 */
export function localStorageStorage(key: string): Storage {
  const keeper = webStorage();
  if (!keeper) return memoryStorage();
  // Set once something could not be kept: what is there from before is no longer true.
  let broken = false;
  return {
    shared: key,
    read() {
      if (broken) return undefined;
      try {
        return parse(keeper.getItem(key));
      } catch {
        return undefined;
      }
    },
    write(session) {
      try {
        if (session) keeper.setItem(key, JSON.stringify(session));
        else keeper.removeItem(key);
        broken = false;
      } catch {
        broken = true;
      }
    },
  };
}

/** Merely looking at it throws where a browser forbids it. */
function webStorage(): globalThis.Storage | undefined {
  try {
    return globalThis.localStorage;
  } catch {
    return undefined;
  }
}

/** Somebody else may have written it: what does not look like a session is none. */
function parse(text: string | null): Session | null {
  if (text === null) return null;
  try {
    const { client, uid, token, expiry } = JSON.parse(text) as Record<string, unknown>;
    if (typeof client !== "string" || typeof uid !== "string" || typeof token !== "string") return null;
    return { client, uid, token, expiry: typeof expiry === "number" ? expiry : 0 };
  } catch {
    return null;
  }
}
