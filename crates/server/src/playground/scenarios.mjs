// What the diagrams of the documentation show. Each is played against a real server: by the page when it is asked to, and by
// `scripts/diagrams` for the pictures.
//
// `device`: one that is signed in; `say`: what is being done; `windowPasses`: waits; `pause`: so many seconds.

export const SCENARIOS = {
  sequential: {
    title: "Sequential",
    summary: "Each request presents the newest token, each answer carries the next.",
    async play({ device, say, windowPasses }) {
      for (const number of [1, 2, 3]) {
        say(`A request presents token ${number}. Its answer carries the next one, and ${number} dies when the window closes.`);
        await device.get();
        if (number < 3) await windowPasses();
      }
      say("Token 4 is the only one that will be good. The others are worth nothing to whoever finds them.");
    },
  },
  batch: {
    title: "Batch",
    summary: "Requests sent at once share a token. One answer carries the next, the others are blank.",
    async play({ device, say, windowPasses }) {
      say("Five requests at once, all with token 1. One of the answers carries token 2, the others carry none.");
      await device.batch(5);
      await windowPasses();
      say("The next batch shares token 2 in the same way.");
      await device.batch(3);
      say("No late answer can put an old token over the newest one: only one answer has a token at all.");
    },
  },
  replay: {
    title: "Old token",
    summary: "Within the window the token before is still taken. After it, it is refused.",
    async play({ device, say, windowPasses }) {
      say("A request presents token 1 and gets token 2.");
      await device.get();
      say("Token 1 again, within the window: it counts as part of the same batch, and gets no token.");
      await device.replay(1);
      await windowPasses();
      say("Token 1 once more, after the window: known to be superseded, and refused.");
      await device.replay(1);
      if (!device.signedIn) return say('With on_reuse = "revoke" that has ended the session, for whoever holds the newer token.');
      await device.get();
      say("Whoever holds token 2 goes on undisturbed.");
    },
  },
  slow: {
    title: "Slow beside quick",
    summary: "A token changes when an answer is ready, not when a request arrives.",
    async play({ device, say, pause, windowPasses }) {
      say("A request that takes 3 seconds and two quick ones, all with token 1. A quick one gets token 2.");
      const slow = device.slow(3);
      await device.batch(2);
      await pause(1);
      say("Meanwhile the page goes on with token 2, which gets no other while the window is open.");
      await device.get();
      await slow;
      say("The slow answer was overtaken, so it is blank. It was let in by token 1 all the same.");
      await windowPasses();
      await device.get();
      say("After the window, token 2 is exchanged for token 3.");
    },
  },
  lost: {
    title: "Lost answer",
    summary: "A client that missed a token asks for it within the window.",
    async play({ device, say, windowPasses }) {
      say("A request presents token 1. Its answer carries token 2 and never arrives.");
      await device.lose();
      say("The client still holds token 1. Within the window it asks with unbatch=true, and is given token 2 again.");
      await device.askAgain();
      await windowPasses();
      await device.get();
      say("It goes on as if nothing had happened.");
    },
  },
};
