// The pictures of the playground and of the documentation.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";

interface Event {
  type: "sent" | "received" | "ended";
  at: number;
  exchange?: number;
  [name: string]: unknown;
}
interface Picture {
  svg: string;
  width: number;
  height: number;
  position(at: number): number;
}

const root = new URL("../../../../", import.meta.url);
const { draw } = (await import(new URL("crates/server/src/playground/diagram.mjs", root).href)) as {
  draw(events: Event[], options?: object): Picture;
};
const recorded = async (name: string) =>
  (JSON.parse(await readFile(new URL(`docs/diagrams/${name}.json`, root), "utf8")) as { events: Event[] }).events;
/** The parts of a picture, by their keys. */
const parts = ({ svg }: Picture) =>
  new Map([...svg.matchAll(/^.*?<g data-key="([^"]+)".*$/gm)].map(([text, key]) => [key!, text]));

for (const name of ["sequential", "batch", "replay", "slow", "lost"]) {
  for (const down of [false, true]) {
    test(`what was drawn of "${name}" stays as it is while more happens${down ? ", downwards" : ""}`, async () => {
      const events = await recorded(name);
      const whole = parts(draw(events, { down, least: 2000 }));
      assert.ok(whole.size > events.length / 2);
      for (let length = 2; length < events.length; length += 1) {
        const some = events.slice(0, length);
        const answered = new Set(some.filter(({ type }) => type === "received").map(({ exchange }) => exchange));
        const drawn = parts(draw(some, { down, least: 2000 }));
        for (const exchange of answered) {
          // A note on a batch may come to say of how many requests it is.
          const bare = (text?: string) => text?.replace(/<text class="note".*?<\/text>/, "");
          assert.equal(
            bare(drawn.get(`exchange-${exchange}`)),
            bare(whole.get(`exchange-${exchange}`)),
            `${exchange} of ${length}`,
          );
        }
      }
    });
  }
}

test("downwards it is the same picture, turned", async () => {
  const events = await recorded("replay");
  const [across, down] = [draw(events), draw(events, { down: true })];
  assert.deepEqual([...parts(down).keys()], [...parts(across).keys()]);
  assert.ok(across.width > across.height && down.height > down.width);
  assert.ok(down.width <= 306, "as wide as there is room on a phone");
});

test("text is never markup", () => {
  const note = `<script>"&'`;
  const events: Event[] = [
    { type: "sent", at: 0, exchange: 1, device: 1, token: 1, what: note, note },
    { type: "received", at: 1, exchange: 1, status: 401, token: null, blank: false, code: note },
    { type: "ended", at: 2, device: 1, why: note },
  ];
  const { svg } = draw(events, { names: { 1: note }, title: note });
  assert.ok(!svg.includes("<script"));
  // The title, the name, the note, the reason, and what the description says of the exchange.
  assert.equal(svg.match(/&lt;script&gt;&quot;&amp;'/g)?.length, 4 + 3);
});

test("a long silence is cut short, and time does not go back", () => {
  const ask = (exchange: number, at: number): Event[] => [
    { type: "sent", at, exchange, device: 1, token: 1, what: "GET /", note: "" },
    { type: "received", at: at + 5, exchange, status: 200, token: null, blank: true },
  ];
  const hour = 3_600_000;
  const { width, position, svg } = draw([...ask(1, 0), ...ask(2, hour)], { window: 5 });
  assert.ok(width < 1000, `${width}`);
  assert.match(svg, /class="cut"/);
  let before = 0;
  for (let at = 0; at < hour + 10_000; at += 250) {
    const here = position(at);
    assert.ok(here >= before && here <= width + 7 * 34, `${at}`);
    before = here;
  }
});
