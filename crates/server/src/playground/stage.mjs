// The picture on the page, as it comes to be: what is new is added, tokens travel, time runs.
import { draw, LONGEST } from "./diagram.mjs";

export const calm = matchMedia("(prefers-reduced-motion: reduce)");
/** Where there is no room for time to run across. */
export const narrow = matchMedia("(max-width: 40rem)");
/** Of the names of the lines, where they are above them: as in `style.css`. */
const HEADING = 32;
/** After the end of a window, in seconds. */
const TAIL = 2;
/** How long a token travels, in milliseconds. */
const FLIGHT_TIME = 650;

const $ = (id) => document.getElementById(id);

/** What is in the picture: text of each part, by its key, and how many of its tokens have travelled. */
const drawn = new Map();
const moved = new Map();
/** Tokens that travel, in front of everything else: what they belong to may be drawn anew meanwhile. */
const ghosts = document.createElementNS("http://www.w3.org/2000/svg", "g");
let picture;
/** The newest event that was scrolled to. */
let shown;

/** Draws what has happened, with the device that acts where there is room for one only. */
export function showPicture({ recorder, settings, acting }) {
  const scroller = $("scroller");
  const down = narrow.matches;
  const window = settings.change_headers_on_each_request ? settings.batch_request_buffer_throttle : 0;
  // Downwards there is room for one device.
  const only = down ? (acting?.number ?? recorder.devices.at(-1)?.number) : undefined;
  const events = only ? eventsOf(recorder.events, only) : recorder.events;
  const names = recorder.devices.length ? recorder.names : { 1: "Device 1" };
  picture = draw(events, {
    window,
    forgiving: settings.forgive_lost_responses,
    names: only ? { [only]: names[only] } : names,
    tail: Math.min(window, LONGEST) + TAIL,
    down,
    least: down ? scroller.clientHeight - HEADING : scroller.clientWidth - $("gutter").offsetWidth,
    gutter: false,
    title: "Requests and their tokens",
  });
  const parsed = new DOMParser().parseFromString(picture.svg, "image/svg+xml").documentElement;
  let svg = $("sheet").querySelector("svg");
  if (!svg) {
    svg = document.importNode(parsed, false);
    svg.append(ghosts);
    $("sheet").prepend(svg);
  }
  for (const { name, value } of parsed.attributes) if (name !== "xmlns") svg.setAttribute(name, value);
  patch(svg, parsed);

  $("gutter").replaceChildren(
    ...picture.lines.map(({ text, side, small }) => {
      const name = Object.assign(document.createElement("span"), { textContent: text, className: small ? "small" : "" });
      name.style[down ? "left" : "top"] = `${side}px`;
      return name;
    }),
  );
  const last = events.at(-1);
  if (last && last !== shown) {
    shown = last;
    const room = down ? scroller.clientHeight : scroller.clientWidth;
    const along = Math.max(0, picture.position(last.at) - room + Math.min(room * 0.4, 260));
    scroller.scrollTo({ [down ? "top" : "left"]: along, behavior: calm.matches ? "auto" : "smooth" });
  }
}

/** What concerns one device. */
function eventsOf(events, device) {
  const own = new Set(events.filter((event) => event.type === "sent" && event.device === device).map((event) => event.exchange));
  return events.filter((event) => event.device === device || own.has(event.exchange));
}

/** Brings the picture up to date, and leaves alone what has not changed: it may be moving. */
function patch(svg, parsed) {
  const parts = [...svg.children].filter((child) => child !== ghosts);
  const before = new Map(parts.map((child) => [child.dataset.key ?? child.tagName, child]));
  let place = svg.firstElementChild;
  for (const part of [...parsed.children]) {
    const key = part.dataset.key ?? part.tagName;
    const text = part.outerHTML;
    let element = before.get(key);
    before.delete(key);
    if (!element || drawn.get(key) !== text) {
      const fresh = document.importNode(part, true);
      if (element === place) place = place.nextElementSibling;
      if (element?.classList.contains("chosen")) fresh.classList.add("chosen");
      element?.remove();
      element = fresh;
      drawn.set(key, text);
      svg.insertBefore(element, place);
      const seen = moved.get(key) ?? 0;
      const tokens = [...element.querySelectorAll("[data-way]")];
      if (!calm.matches) tokens.slice(seen).forEach((token, index) => travel(token, seen + index));
      moved.set(key, Math.max(seen, tokens.length));
    } else if (element === place) {
      place = place.nextElementSibling;
    } else {
      svg.insertBefore(element, place);
    }
  }
  for (const [key, element] of before) {
    element.remove();
    drawn.delete(key);
  }
}

/** Lets a token travel: as the first of its exchange, or after it. */
function travel(token, place) {
  const [, x, y] = /translate\(([\d.-]+) ([\d.-]+)\)/.exec(token.getAttribute("transform"));
  const [x1, y1, x2, y2] = token.dataset.way.split(" ").map(Number);
  const at = (dx, dy) => `translate(${Number(x) + dx}px, ${Number(y) + dy}px)`;
  const timing = { duration: FLIGHT_TIME, delay: place * FLIGHT_TIME * 0.6, fill: "both" };
  const ghost = token.cloneNode(true);
  ghost.classList.add("ghost");
  ghost.removeAttribute("data-way");
  ghosts.append(ghost);
  const flight = ghost.animate(
    [
      { transform: at(x1, y1), opacity: 0 },
      { transform: at(x1 * 0.8, y1 * 0.8), opacity: 1, offset: 0.1 },
      { transform: at(x2 * 0.9, y2 * 0.9), opacity: 1, offset: 0.85 },
      { transform: at(x2, y2), opacity: 0 },
    ],
    { ...timing, easing: "ease-in-out" },
  );
  flight.onfinish = flight.oncancel = () => ghost.remove();
  token.animate([{ opacity: 0 }, { opacity: 0, offset: 0.35 }, { opacity: 1, offset: 0.5 }, { opacity: 1 }], {
    ...timing,
    fill: "backwards",
  });
}

/** Time has come this far: what lies beyond is yet to be. */
export function showTime(recorder) {
  const future = $("future");
  const runs = recorder.events.length > 0;
  future.classList.toggle("runs", runs);
  if (!runs) return;
  const along = `${picture.position(recorder.now())}px`;
  const [left, top] = narrow.matches ? ["0px", along] : [along, "0px"];
  if (future.style.left !== left) future.style.left = left;
  if (future.style.top !== top) future.style.top = top;
}

/** Sets an exchange off from the others, or no longer. */
export function mark(exchange, chosen) {
  $("sheet").querySelector(`[data-exchange="${exchange}"]`)?.classList.toggle("chosen", chosen);
}

export function clearPicture() {
  drawn.clear();
  moved.clear();
  ghosts.replaceChildren();
}
