// A page that signs in and orders. All it does for the token is to call `baton.fetch`.
import { Baton } from "/client/index.js";

const baton = new Baton({ url: "/auth" });
const $ = (id) => document.getElementById(id);

function note(text) {
  const line = document.createElement("li");
  line.textContent = text;
  $("log").prepend(line);
}

/** Shows what there is to see for whoever is signed in. */
async function show() {
  const { session } = baton;
  $("door").hidden = session !== null;
  $("inside").hidden = session === null;
  $("who").textContent = await (await baton.fetch("/greet")).text();
  if (session) await showDevices();
}

async function showDevices() {
  const devices = await baton.devices();
  $("devices").replaceChildren(
    ...devices.map(({ id, current, user_agent: name, last_seen_at: seen }) => {
      const line = document.createElement("li");
      line.append(`${current ? "This one" : (name ?? "Another one")}, last seen ${new Date(seen).toLocaleTimeString()} `);
      if (current) return line;
      const end = document.createElement("button");
      end.className = "quiet";
      end.textContent = "End";
      end.onclick = () => act(line, async () => {
        await baton.endDevice(id);
        await showDevices();
      });
      line.append(end);
      return line;
    }),
  );
}

/** Does something, and says beside it what went wrong. */
async function act(place, action) {
  const fault = place.querySelector(".fault");
  if (fault) fault.textContent = "";
  try {
    await action();
  } catch (error) {
    const said = error.errors?.join(" ") || "The server could not be reached.";
    if (fault) fault.textContent = said;
    note(said);
  }
}

async function order(item) {
  const body = JSON.stringify({ item });
  const response = await baton.fetch("/orders", { method: "POST", headers: { "content-type": "application/json" }, body });
  if (response.ok) note(`ordered ${(await response.json()).ordered}`);
  else if (response.status !== 401) note(`not ordered: ${response.status}`);
}

$("door").onsubmit = (event) => {
  event.preventDefault();
  const form = event.currentTarget;
  const { email, password } = Object.fromEntries(new FormData(form));
  const signUp = event.submitter?.value === "signUp";
  void act(form, () => (signUp ? baton.signUp({ email, password }) : baton.signIn({ email, password })));
};
$("order").onsubmit = (event) => {
  event.preventDefault();
  void act(event.currentTarget, () => order(new FormData($("order")).get("item")));
};
$("batch").onclick = () => act($("order"), () => Promise.all(["tea", "milk", "sugar", "lemon", "cake"].map(order)));
$("signOut").onclick = () => act($("order"), () => baton.signOut());

baton.on("signedIn", ({ uid, elsewhere }) => {
  note(`${uid} signed in${elsewhere ? " in another tab" : ""}`);
  void act($("door"), show);
});
baton.on("signedOut", ({ elsewhere }) => {
  note(`signed out${elsewhere ? " in another tab" : ""}`);
  void act($("door"), show);
});
baton.on("ended", ({ code }) => {
  note(`the session is over: ${code}`);
  void act($("door"), show);
});
baton.on("token", ({ generation, elsewhere }) => note(`token ${generation}${elsewhere ? " (another tab's request)" : ""}`));

await act($("door"), async () => {
  await baton.restore();
  await show();
});
