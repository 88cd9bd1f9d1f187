/** A session as a client holds it. */
export interface Session {
  /** Names the session; not a secret. */
  readonly client: string;
  /** The account's name in the session: the e-mail address, for accounts with a password. */
  readonly uid: string;
  /** The newest access token: a secret. Empty where it travels in a cookie, which no script sees. */
  readonly token: string;
  /** When the session ends unless it is used, in Unix seconds; 0 if that was not said. */
  readonly expiry: number;
}

/**
 * The number of a token within its session: 1 at the sign-in, one more with each rotation. It is in bytes 1 to 4 of the
 * token, big endian (docs/protocol.md, "Tokens").
 *
 * 0 for whatever is not a token, so that it never takes the place of one.
 */
export function generation(token: string): number {
  if (!/^[\w-]{28}$/.test(token)) return 0;
  const start = atob(token.slice(0, 8).replaceAll("-", "+").replaceAll("_", "/"));
  let number = 0;
  for (const byte of start.slice(1, 5)) number = number * 256 + byte.charCodeAt(0);
  return number;
}

/**
 * The newer of two states of one session. Of two sessions it is the second: somebody has signed in anew.
 *
 * Responses may overtake each other, and tabs each hear of their own, so "the one that came last" would go backwards.
 */
export function newer(held: Session, other: Session): Session {
  if (held.client !== other.client) return other;
  return generation(held.token) > generation(other.token) ? held : other;
}
