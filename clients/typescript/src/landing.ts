import type { Session } from "./session.js";
import type { HeaderNames } from "./wire.js";

/** What the address says that a letter's link has led to. */
export interface Landing {
  /**
   * `passwordReset`: show a form for the new password. `confirmation`: the address was confirmed, if `success`. `unlock`: the
   * lock was lifted.
   */
  kind: "passwordReset" | "confirmation" | "unlock";
  /** Whether it did what it was for. Only a confirmation can fail and yet lead here. */
  success: boolean;
  /** To be given to `updatePassword`, where the server hands out no session for it (`require_client_password_reset_token`). */
  resetToken?: string;
}

/** Everything that a link may have put into the address. */
const PARAMETERS = [
  "access-token",
  "token",
  "client",
  "client_id",
  "uid",
  "expiry",
  "config",
  "reset_password",
  "reset_password_token",
  "account_confirmation_success",
  "unlock",
];

/** What was found in an address, and the address without it. */
export interface Found {
  landing: Landing;
  /** The session that the link has opened. */
  session: Session | undefined;
  rest: URL;
}

/** Reads an address: the query, and a query behind the `#` of front ends that keep their route there. */
export function readLanding(address: URL, names: HeaderNames): Found | undefined {
  const rest = new URL(address);
  const [route = "", query = ""] = splitOnce(rest.hash, "?");
  const inside = new URLSearchParams(query);
  const get = (name: string) => rest.searchParams.get(name) || inside.get(name) || "";

  const confirmed = get("account_confirmation_success");
  const reset = get("reset_password") === "true" || get("reset_password_token") !== "";
  const unlocked = get("unlock") === "true";
  if (!confirmed && !reset && !unlocked) return undefined;

  const client = get(names.client) || get("client_id");
  const token = get(names["access-token"]) || get("token");
  const uid = get("uid");
  const session = client && uid ? { client, uid, token, expiry: Number(get("expiry")) || 0 } : undefined;
  const landing: Landing = {
    kind: reset ? "passwordReset" : unlocked ? "unlock" : "confirmation",
    success: confirmed ? confirmed === "true" : true,
  };
  // With a session there is no need of it.
  const resetToken = get("reset_password_token");
  if (resetToken && !session) landing.resetToken = resetToken;

  for (const name of [...PARAMETERS, names.client, names["access-token"]]) {
    rest.searchParams.delete(name);
    inside.delete(name);
  }
  const left = inside.toString();
  if (query) rest.hash = left ? `${route}?${left}` : route;
  return { landing, session, rest };
}

function splitOnce(text: string, separator: string): string[] {
  const at = text.indexOf(separator);
  return at < 0 ? [text] : [text.slice(0, at), text.slice(at + 1)];
}
