/** What went wrong, as the server says it. */
export class BatonError extends Error {
  override readonly name = "BatonError";

  constructor(
    /** Status of the response; 0 if there was none. */
    readonly status: number,
    /**
     * A stable reason, such as `bad_credentials`, `rate_limited`, `unavailable` (docs/protocol.md, "Refusals"); `network` if there
     * was no response, `unknown` if the response does not say.
     */
    readonly code: string,
    /** Sentences to show. */
    readonly errors: readonly string[],
    /** Sentences to show beside the fields of a form, by the field's name. */
    readonly fields: Readonly<Record<string, readonly string[]>> = {},
    /** In how many seconds to try again, if that was said. */
    readonly retryAfter?: number,
    options?: ErrorOptions,
  ) {
    super(errors[0] ?? code, options);
  }
}

/** The error that a response with a status of 400 or more stands for. */
export async function errorOf(response: Response): Promise<BatonError> {
  const body = await jsonOf(response);
  const code = typeof body["code"] === "string" ? body["code"] : "unknown";
  const seconds = Number(response.headers.get("retry-after") ?? NaN);
  const retryAfter = Number.isFinite(seconds) ? seconds : undefined;
  if (Array.isArray(body["errors"])) {
    return new BatonError(response.status, code, sentences(body["errors"]), {}, retryAfter);
  }
  // {"email": ["…"], "full_messages": ["…"]}
  const { full_messages: all, ...rest } = Object(body["errors"]) as Record<string, unknown>;
  const fields = Object.fromEntries(Object.entries(rest).map(([name, faults]) => [name, sentences(faults)]));
  return new BatonError(response.status, code, sentences(all), fields, retryAfter);
}

/** The JSON object in a response, or an empty one. */
export async function jsonOf(response: Response): Promise<Record<string, unknown>> {
  if (!response.headers.get("content-type")?.includes("json")) return {};
  try {
    return Object(await response.json()) as Record<string, unknown>;
  } catch {
    return {};
  }
}

function sentences(value: unknown): string[] {
  return Array.isArray(value) ? value.map(String) : [];
}
