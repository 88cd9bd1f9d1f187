import type { Session } from "./session.js";

/** What tabs tell each other. The token is not in it: it is in what they share. */
export interface News {
  about: "signedIn" | "signedOut" | "ended" | "token" | "doubt";
  /** The session that it is about. */
  session: Session;
  /** Why it ended. */
  code?: string;
}

/** A line to the other tabs. */
export interface Line {
  tell(news: News): void;
  close(): void;
}

/**
 * Opens the line `name`: a BroadcastChannel, or where there is none the event that a change of `localStorage` causes in the
 * other tabs, which tells less.
 */
export function openLine(name: string, hear: (news: News) => void): Line {
  if (!name) return { tell: () => {}, close: () => {} };
  if (typeof BroadcastChannel === "function") {
    const channel = new BroadcastChannel(name);
    channel.onmessage = (event) => hear(event.data as News);
    // A script in Node should end although it listens.
    (channel as { unref?: () => void }).unref?.();
    return {
      tell: ({ session, ...news }) => channel.postMessage({ ...news, session: { ...session, token: "" } }),
      close: () => channel.close(),
    };
  }
  const changed = (event: StorageEvent) => {
    if (event.key !== name) return;
    const [before, after] = [parse(event.oldValue), parse(event.newValue)];
    if (after) hear({ about: before?.client === after.client ? "token" : "signedIn", session: after });
    else if (before) hear({ about: "ended", session: before, code: "elsewhere" });
  };
  globalThis.addEventListener?.("storage", changed);
  return { tell: () => {}, close: () => globalThis.removeEventListener?.("storage", changed) };
}

function parse(text: string | null): Session | undefined {
  try {
    return text ? (JSON.parse(text) as Session) : undefined;
  } catch {
    return undefined;
  }
}
