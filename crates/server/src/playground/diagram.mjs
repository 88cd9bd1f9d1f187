// Draws what happened between devices and a server: a line for each device, one for the server, time along them.
// Pure: events in, text of an SVG out. The playground and the pictures of the documentation both come from here.
//
// Events, in the order in which a device saw them (`at` in milliseconds):
//
//   { type: "sent", at, exchange, device, token, what, note }    token: number of the one presented, or null
//   { type: "received", at, exchange, status, token, blank, code, lost, ends }
//                       token: number of the one handed out, or null; blank: the headers were there without one;
//                       lost: the device never saw it; ends: the session is over with it; status 0: there was no answer
//   { type: "ended", at, device, why }                           a session is over, other than by its own request

/** Between two lines of a kind, and for the way from one line to the other, in pixels. */
const STEP = 30;
const FLIGHT = 34;
/** What the server takes at least, so that an answer is seen to come after its question. */
const WORK = 14;
const PER_SECOND = 34;
/** Of a window, how many seconds are drawn. */
export const LONGEST = 30;
/** From how many milliseconds on the work of the server is drawn. */
const SLOW = 400;
/** Between the lines of a device and of the server, and what lies beyond the server's: a bracket, two rows of bars. */
const BETWEEN = 104;
const BRACKET = 26;
const ACCEPTED = [38, 55];
const BAR = 13;
/** How far a token has come on its way when it is drawn. */
const SHARE = 0.29;
const RADIUS = 11;
const COLOURS = 6;

/**
 * How time runs: from the left to the right, or downwards, where there is no room for that. `at` makes a point of a time and of
 * a distance from the first line; `before` is the room in front of a device's line, `strip` that of a device as a whole, `names`
 * that of the names of the lines, and `axis` that of the seconds.
 */
const ACROSS = { kind: "across", at: (time, side) => [time, side], before: 50, strip: 240, names: 76, axis: 30 };
const DOWN = { kind: "down", at: (time, side) => [side, time], before: 93, strip: 273, names: 34, axis: 33 };

/**
 * @param events see above
 * @param options `window`: the batch window in seconds; `forgiving`: whether a token stays good until its successor was seen;
 *   `names`: of the devices, by number; `down`: whether time runs downwards; `tail`: seconds to show after the last event;
 *   `least`: how long it is at least, in pixels; `title`, `description`: for those who hear the picture; `style`: CSS to make it
 *   stand alone; `gutter`: false to leave the names of the lines out
 * @returns `svg`, its `width` and `height`, `position(at)`: how far along a time is, `lines`: what is at which distance
 */
export function draw(events, options = {}) {
  const {
    window = 5,
    names = {},
    down = false,
    tail = 0,
    least = 0,
    title = "Requests and tokens",
    style,
    gutter = true,
  } = options;
  const way = down ? DOWN : ACROSS;
  const start = gutter ? way.names : 12;
  const time = scale(events, window, start);
  const exchanges = gather(events, time);
  const devices = [...new Set([...Object.keys(names).map(Number), ...events.map((event) => event.device).filter(Boolean)])];
  const end = Math.ceil(Math.max(time.end + FLIGHT + Math.max(16, tail * PER_SECOND), least));
  const depth = devices.length * way.strip + way.axis;
  const [width, height] = way.at(end, depth);

  const parts = [];
  const lines = [];
  devices.forEach((device, index) => {
    const client = index * way.strip + way.before;
    const own = exchanges.filter((exchange) => exchange.device === device);
    lines.push({ text: names[device] ?? `Device ${device}`, side: client }, { text: "Server", side: client + BETWEEN });
    if (own.length) lines.push({ text: "accepts", side: client + BETWEEN + (ACCEPTED[0] + ACCEPTED[1] + BAR) / 2, small: true });
    parts.push(
      ...new Strip({ way, device, own, events, client, start, end, time, window, forgiving: options.forgiving }).parts(),
    );
  });
  parts.push(ticks(way, events, time, depth - way.axis, start, end));
  if (gutter) parts.push(keyed("names", "names", lines.map((line) => lineName(way, line)).join("")));

  const description = options.description ?? describe(events, names).join(" ");
  const svg =
    `<svg xmlns="http://www.w3.org/2000/svg" class="diagram ${way.kind}" role="img" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}"` +
    ` aria-labelledby="diagram-title diagram-description">` +
    `<title id="diagram-title">${escape(title)}</title><desc id="diagram-description">${escape(description)}</desc>` +
    (style ? `<style>${style}</style><rect class="paper" width="${width}" height="${height}" rx="8"/>` : "") +
    `${parts.join("\n")}</svg>\n`;
  return { svg, width, height, lines, position: time.x };
}

/** What happened, a sentence for each exchange. */
export function describe(events, names = {}) {
  const several = new Set(events.map((event) => event.device).filter(Boolean)).size > 1;
  return gather(events).map(
    (exchange) =>
      `${exchange.number}: ${several ? `${names[exchange.device] ?? `device ${exchange.device}`}, ` : ""}${sentence(exchange)}.`,
  );
}

/** What became of one exchange: `exchange` as `gather` makes them. */
export function sentence({ what, token, note, answer }) {
  const asked = [note, what].filter(Boolean).join(", ");
  const presented = token === null ? "without a token" : `with token ${token}`;
  return `${asked}, ${presented}; ${outcome(answer)}`;
}

export function outcome(answer) {
  if (!answer) return "under way";
  if (answer.status === 0) return "no answer";
  const status = answer.code ? `${answer.status} ${answer.code}` : `${answer.status}`;
  const carried = answer.token !== null ? `, token ${answer.token}` : answer.blank ? ", no new token" : "";
  return `${status}${carried}${answer.lost ? ", lost on the way" : ""}`;
}

/** Each request with its answer, in the order of the requests. */
export function gather(events, time) {
  const found = new Map();
  events.forEach((event, index) => {
    if (event.type === "sent") {
      const { exchange, device, token, what, note, at } = event;
      found.set(exchange, { number: exchange, device, token, what, note, at, index, sentX: time?.of[index] });
    } else if (event.type === "received") {
      const exchange = found.get(event.exchange);
      if (exchange) Object.assign(exchange, { answer: event, answerIndex: index, receivedX: time?.of[index] });
    }
  });
  return [...found.values()];
}

/** Whether the server took the token, as far as the device could see. */
const isRefused = ({ token, answer }) => token !== null && answer?.status === 401 && answer.token === null && !answer.blank;

/**
 * Where times are. What follows at once is given some room, long silences are cut short, and in between a second has a
 * fixed length: so what was drawn once stays where it is.
 */
function scale(events, window, left) {
  const longest = (Math.min(window, LONGEST) + 2) * PER_SECOND;
  const of = [];
  /** Where each device has sent its latest request, and whose exchange it was. */
  const sent = new Map();
  const owner = new Map();
  const anchors = [];
  const cuts = [];
  let x = left + STEP / 2;
  let before;
  for (const event of events) {
    if (before !== undefined) {
      const length = ((event.at - before) / 1000) * PER_SECOND;
      if (length > longest + STEP) cuts.push(x + longest / 2);
      x += Math.max(STEP, Math.min(length, longest));
    }
    // What a device had sent by then is drawn as being there by then.
    if (event.type === "received") x = Math.max(x, sent.get(owner.get(event.exchange)) + 2 * FLIGHT + WORK);
    if (event.type === "sent") {
      sent.set(event.device, x);
      owner.set(event.exchange, event.device);
    }
    of.push(x);
    anchors.push({ at: event.at, x });
    before = event.at;
  }
  const last = anchors.at(-1) ?? { at: 0, x };
  return { of, anchors, cuts, end: last.x, x: at };

  function at(time) {
    if (time >= last.at) return last.x + Math.min(((time - last.at) / 1000) * PER_SECOND, longest);
    let low = 0;
    let high = anchors.length - 1;
    // The last anchor that is not after it.
    while (low < high) {
      const middle = Math.ceil((low + high) / 2);
      if (anchors[middle].at <= time) low = middle;
      else high = middle - 1;
    }
    const [from, to] = [anchors[low], anchors[low + 1]];
    if (time <= from.at) return from.x;
    // As long as a second is where it fits, then the rest of the way at once.
    return Math.min(from.x + ((time - from.at) / 1000) * PER_SECOND, to.x - ((to.at - time) / (to.at - from.at)) * 4);
  }
}

/** One device and the server. */
class Strip {
  constructor(parts) {
    Object.assign(this, parts);
    this.server = this.client + BETWEEN;
    this.handedOut = new Map();
    const ends = this.events
      .filter((event) => event.type === "ended" && event.device === this.device)
      .map((event) => this.time.x(event.at) + FLIGHT);
    for (const { token, receivedX, answer } of this.own) {
      if (!answer || answer.status === 0) continue;
      const from = receivedX - FLIGHT;
      if (answer.token !== null && !this.handedOut.has(answer.token))
        this.handedOut.set(answer.token, { from, at: answer.at, first: token === null });
      if (answer.ends) ends.push(from);
    }
    /** Where the session is over. */
    this.over = Math.min(...ends, Infinity);
    this.windows = new Map();
    for (const [token, { from, at, first }] of this.handedOut) {
      // The token of a sign-in opens no window.
      if (!first && this.window)
        this.windows.set(token, { from, to: Math.min(this.time.x(at + this.window * 1000) + FLIGHT, this.over) });
    }
  }

  parts() {
    const batches = concurrent(this.own);
    return [
      ...[...this.windows].map(([token, window]) => this.part(`window-${token}`, "window", this.windowOf(window))),
      this.part("lines", "lines", this.lines()),
      ...[...this.handedOut.keys()].map((token) => this.accepted(token)),
      this.over < this.end ? this.part("over", "over", this.ending()) : "",
      ...batches.map((batch) => this.part(`batch-${batch[0].number}`, "batch", this.circle(batch))),
      ...this.withNotes(batches),
    ].filter(Boolean);
  }

  part(key, kind, inner) {
    return keyed(`${this.device}-${key}`, kind, inner);
  }

  point(time, side) {
    return this.way.at(time, side).map(n).join(" ");
  }

  path(...points) {
    return points.map(([time, side], index) => `${index ? "L" : "M"}${this.point(time, side)}`).join("");
  }

  rect(from, to, side, depth, more = "") {
    const [[x, y], [width, height]] = [this.way.at(from, side), this.way.at(to - from, depth)];
    return `<rect x="${n(x)}" y="${n(y)}" width="${n(width)}" height="${n(height)}"${more}/>`;
  }

  /** Text that begins, ends or has its middle there, as its class says. */
  text(kind, time, side, text, dx = 0, dy = 0) {
    const [x, y] = this.way.at(time, side);
    return `<text class="${kind}" x="${n(x + dx)}" y="${n(y + dy)}">${escape(text)}</text>`;
  }

  /** For how long the token before is taken as well. */
  windowOf({ from, to }) {
    const { client, server, end, way } = this;
    const shown = Math.min(to, end);
    const [outer, inner] = [server + BRACKET, server + BRACKET - 5];
    const text = `${this.window} s window`;
    let label = "";
    if (shown - from > text.length * 6.6 + 12) {
      const [x, y] = way.at((from + shown) / 2, server + BRACKET - 8);
      label = `<text x="${n(x)}" y="${n(y)}"${way === DOWN ? ` transform="rotate(90 ${n(x)} ${n(y)})"` : ""}>${text}</text>`;
    }
    return (
      this.rect(from, shown, client, BETWEEN) +
      `<path d="${this.path([from, inner], [from, outer], [shown, outer], ...(to <= end ? [[shown, inner]] : []))}"/>${label}`
    );
  }

  lines() {
    const { client, server, start, end, time } = this;
    const endX = Math.min(this.over, end);
    const cut = (x, side) =>
      `<path class="cut" d="${this.path([x - 6, side + 6], [x, side - 6])}${this.path([x, side + 6], [x + 6, side - 6])}"/>`;
    return (
      `<path d="${this.path([start, client], [end, client])}"/><path d="${this.path([start, server], [endX, server])}"/>` +
      (endX < end ? `<path class="after" d="${this.path([endX, server], [end, server])}"/>` : "") +
      time.cuts.map((x) => cut(x, client) + cut(x, server)).join("")
    );
  }

  /** From when to when the server takes a token. */
  accepted(token) {
    const { from } = this.handedOut.get(token);
    const next = Math.min(...[...this.handedOut.keys()].filter((other) => other > token));
    let to = Infinity;
    if (next < Infinity) {
      to = this.windows.get(next)?.to ?? this.handedOut.get(next).from;
      if (this.forgiving) {
        const seen = this.own.find((exchange) => exchange.token === next);
        to = seen ? Math.max(to, seen.sentX + FLIGHT) : Infinity;
      }
    }
    to = Math.min(to, this.over, this.end);
    if (to <= from) return "";
    const side = this.server + ACCEPTED[token % 2];
    const label = this.way === DOWN ? this.text("", from, side + BAR / 2, token, 0, 11) : this.text("", from, side, token, 8, 10);
    return this.part(`accepts-${token}`, `accepts ${colour(token)}`, this.rect(from, to, side, BAR, ' rx="3"') + label);
  }

  ending() {
    const { over, server } = this;
    const why = this.events.findLast((event) => event.type === "ended" && event.device === this.device)?.why ?? "signed out";
    const text = this.way === DOWN ? this.text("", over, server, why, -6, -6) : this.text("", over, server, why, 6, 15);
    return `<path d="${this.path([over, server - 12], [over, server + ACCEPTED[1] + BAR + 3])}"/>${text}`;
  }

  circle(batch) {
    const around = RADIUS + 6;
    const side = this.client + SHARE * BETWEEN;
    return this.rect(discAt(batch[0]) - around, discAt(batch.at(-1)) + around, side - around, 2 * around, ` rx="${around}"`);
  }

  withNotes(batches) {
    const { client, start, way } = this;
    const free = [start, start];
    const label = (x, text) => {
      if (way === DOWN) return this.text("note", x, client, text, -23, 4);
      const row = free.findIndex((from) => from <= x);
      if (row < 0) return "";
      free[row] = x + text.length * 6.4 + 10;
      return this.text("note", x, client, text, 0, -18 - row * 15);
    };
    return this.own.map((exchange) => {
      const batch = batches.find((batch) => batch.includes(exchange));
      let text = exchange.note ?? "";
      // One note for all of a batch.
      if (batch?.every((other) => other.note === exchange.note))
        text = batch[0] === exchange ? exchange.note || `batch of ${batch.length}` : "";
      return this.exchange(exchange, text ? label(exchange.sentX - (way === DOWN ? 0 : 6), text) : "");
    });
  }

  /** A request and its answer. */
  exchange(exchange, note) {
    const { client, server, end, way } = this;
    const { number, sentX, receivedX, token, answer } = exchange;
    const refused = isRefused(exchange);
    const arriveX = sentX + FLIGHT;
    let inner =
      (way === DOWN ? this.text("number", sentX, client, number, -6, 4) : this.text("number", sentX, client, number, 0, -5)) +
      note;
    inner += this.arrow([sentX, client], [arriveX, server], refused ? "refused" : "");
    if (token !== null)
      inner += this.disc(
        discAt(exchange),
        client + SHARE * BETWEEN,
        token,
        `${colour(token)}${refused ? " refused" : ""}`,
        this.travels(1, refused ? 0.8 : 1),
      );
    if (refused) inner += this.cross(arriveX - 0.2 * FLIGHT, server - 0.2 * BETWEEN, 8);
    const leaveX = answer ? receivedX - FLIGHT : end;
    if (!answer || answer.at - exchange.at >= SLOW)
      inner += this.rect(arriveX, leaveX, server - 4, 8, ` rx="2" class="work${answer ? "" : " open"}"`);
    if (answer) inner += this.answer(answer, leaveX, receivedX);
    const kind = ["exchange", refused && "refused", answer?.lost && "lost", !answer && "open"].filter(Boolean).join(" ");
    return keyed(`exchange-${number}`, kind, inner, ` data-exchange="${number}"`);
  }

  answer({ status, token, blank, lost }, leaveX, receivedX) {
    const { client, server } = this;
    const on = (share) => [leaveX + FLIGHT * share, server - BETWEEN * share];
    if (status === 0) return this.arrow(on(0), on(0.5), "lost") + this.cross(...on(0.5), 7);
    const [time, side] = on(SHARE);
    const travels = this.travels(-1, lost ? 0.7 : 1);
    let drawn = lost
      ? this.arrow(on(0), on(0.66), "lost") + this.cross(...on(0.7), 7)
      : this.arrow(on(0), [receivedX, client], status === 401 && token === null && !blank ? "refused" : "");
    if (token !== null) drawn += this.disc(time, side, token, `${colour(token)} new`, travels);
    else if (blank) drawn += this.disc(time, side, "", "blank", travels);
    else if (status >= 400)
      drawn += `<g class="status" transform="translate(${this.point(time, side)})" data-way="${travels}"><rect x="-15" y="-9" width="30" height="18" rx="4"/><text y="4">${status}</text></g>`;
    return drawn;
  }

  arrow(from, to, kind) {
    const [[x1, y1], [x2, y2]] = [this.way.at(...from), this.way.at(...to)];
    const angle = Math.atan2(y2 - y1, x2 - x1);
    const tip = (turn) => `${n(x2 - 8 * Math.cos(angle + turn))} ${n(y2 - 8 * Math.sin(angle + turn))}`;
    return `<path class="arrow ${kind}" d="M${n(x1)} ${n(y1)}L${n(x2)} ${n(y2)}M${tip(0.45)}L${n(x2)} ${n(y2)}L${tip(-0.45)}"/>`;
  }

  disc(time, side, text, kind, travels) {
    const inner = text === "" ? `<path d="M-4 0h8"/>` : `<text y="4">${text}</text>`;
    return `<g class="token ${kind}" transform="translate(${this.point(time, side)})" data-way="${travels}"><circle r="${RADIUS}"/>${inner}</g>`;
  }

  cross(time, side, size) {
    const [x, y] = this.way.at(time, side);
    return `<path class="cross" d="M${n(x - size)} ${n(y - size)}l${2 * size} ${2 * size}m0 ${-2 * size}l${-2 * size} ${2 * size}"/>`;
  }

  /** From where to where it travels, seen from where it is drawn: for pages that move it. */
  travels(sense, share) {
    const part = (share) => this.way.at(share * FLIGHT, sense * share * BETWEEN);
    return [...part(-SHARE), ...part(share - SHARE)].map(n).join(" ");
  }
}

/** Where its token is drawn. */
const discAt = (exchange) => exchange.sentX + SHARE * FLIGHT;

/** Requests with one token of which each was sent before the first answer to them was there. */
function concurrent(own) {
  const groups = [];
  for (const exchange of own) {
    if (exchange.token === null || isRefused(exchange)) continue;
    const group = groups.find(
      (group) => group[0].token === exchange.token && group.every((other) => (other.answerIndex ?? Infinity) > exchange.index),
    );
    if (group) group.push(exchange);
    else groups.push([exchange]);
  }
  return groups.filter((group) => group.length > 1);
}

/** Seconds, where there are any. */
function ticks(way, events, time, side, start, end) {
  const path = (x, from, to) => `<path d="M${way.at(x, from).map(n).join(" ")}L${way.at(x, to).map(n).join(" ")}"/>`;
  const drawn = [`<path d="M${way.at(start, side).join(" ")}L${way.at(end, side).join(" ")}"/>`];
  const first = events[0]?.at ?? 0;
  let free = start;
  let before = -Infinity;
  for (let second = 0; ; second += 1) {
    const x = time.x(first + second * 1000);
    if (x > end - 8 || x <= before) break;
    // Where a silence was cut short, seconds lie on each other.
    if (x - before > 3) drawn.push(path(x, side, side + 5));
    before = x;
    if (x < free || second % 5) continue;
    free = x + 40;
    const [textX, textY] = way === DOWN ? way.at(x + 4, side + 9) : way.at(x, side + 18);
    drawn.push(`<text x="${n(textX)}" y="${n(textY)}">${second} s</text>`);
  }
  return keyed("axis", "axis", drawn.join(""));
}

function lineName(way, { text, side, small }) {
  const [x, y] = way === DOWN ? way.at(18, side) : way.at(8, side + 4);
  return `<text class="name${small ? " small" : ""}" x="${n(x)}" y="${n(y)}">${escape(text)}</text>`;
}

/** A part that can be told from the others, so that a page need not draw again what has not changed. */
function keyed(key, kind, inner, more = "") {
  return `<g data-key="${key}" class="${kind}"${more}>${inner}</g>`;
}

const colour = (token) => `t${token % COLOURS}`;
const n = (number) => String(Math.round(number * 10) / 10);
const escape = (text) =>
  String(text).replace(/[&<>"]/g, (char) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[char]);
