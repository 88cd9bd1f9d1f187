/** What may happen to a session. */
export interface Events {
  /** Somebody has signed in, here or in another tab (`elsewhere`). */
  signedIn: { uid: string; elsewhere: boolean };
  /** Somebody has signed out, here or in another tab. */
  signedOut: { uid: string; elsewhere: boolean };
  /**
   * The session is over, and nobody has asked for it: ended from another device (`session_revoked`), not used for too long
   * (`token_expired`), … It was noticed here or in another tab.
   */
  ended: { uid: string; code: string; elsewhere: boolean };
  /** The token has changed; the generation is its number. */
  token: { generation: number; elsewhere: boolean };
}

type Listener<E extends keyof Events> = (event: Events[E]) => void;

/** Tells listeners. */
export class Emitter {
  readonly #listeners: { [E in keyof Events]: Set<Listener<E>> } = {
    signedIn: new Set(),
    signedOut: new Set(),
    ended: new Set(),
    token: new Set(),
  };

  /** Calls `listener` from now on, until the function that this returns is called. */
  on<E extends keyof Events>(event: E, listener: Listener<E>): () => void {
    this.#listeners[event].add(listener);
    return () => void this.#listeners[event].delete(listener);
  }

  /** A listener that throws is its own affair: the others are told, and so is whoever watches for unhandled errors. */
  emit<E extends keyof Events>(event: E, what: Events[E]): void {
    for (const listener of this.#listeners[event]) {
      try {
        listener(what);
      } catch (error) {
        queueMicrotask(() => {
          throw error;
        });
      }
    }
  }
}
