/** What is used of the Web Locks API. */
export interface Locks {
  request<T>(name: string, options: LockOptions, task: () => Promise<T>): Promise<T>;
}

/**
 * The browser's locks, which all tabs of an origin share. Without them (a page that did not come over TLS, Node before 24) locks
 * hold among the clients of this page or process.
 */
export function sharedLocks(): Locks {
  return globalThis.navigator?.locks ?? local;
}

interface Waiter {
  exclusive: boolean;
  start: () => void;
}

/** Locks of this page: in the order in which they were asked for, shared ones together, as Web Locks are granted. */
class LocalLocks implements Locks {
  readonly #queues = new Map<string, { held: number; exclusive: boolean; waiting: Waiter[] }>();

  async request<T>(name: string, options: LockOptions, task: () => Promise<T>): Promise<T> {
    await this.#acquire(name, options.mode !== "shared", options.signal);
    try {
      return await task();
    } finally {
      this.#release(name);
    }
  }

  #acquire(name: string, exclusive: boolean, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const waiter = { exclusive, start: resolve };
      const queue = this.#queues.get(name) ?? { held: 0, exclusive: false, waiting: [] };
      this.#queues.set(name, queue);
      queue.waiting.push(waiter);
      signal?.addEventListener("abort", () => {
        const at = queue.waiting.indexOf(waiter);
        if (at < 0) return;
        queue.waiting.splice(at, 1);
        reject(signal.reason);
        this.#grant(name);
      });
      this.#grant(name);
    });
  }

  #release(name: string): void {
    const queue = this.#queues.get(name);
    if (!queue) return;
    queue.held -= 1;
    this.#grant(name);
  }

  #grant(name: string): void {
    const queue = this.#queues.get(name);
    if (!queue) return;
    for (let next = queue.waiting[0]; next; next = queue.waiting[0]) {
      if (queue.held > 0 && (queue.exclusive || next.exclusive)) return;
      queue.waiting.shift();
      queue.held += 1;
      queue.exclusive = next.exclusive;
      next.start();
    }
    if (queue.held === 0) this.#queues.delete(name);
  }
}

const local = new LocalLocks();
