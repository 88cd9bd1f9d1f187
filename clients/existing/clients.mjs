// The clients, and the settings of the server that each is run with.
import { version } from "./pages.mjs";

const REPEAT = 'batch_response = "repeat"';
const FORGIVE = "forgive_lost_responses = true";
const PARAMS = "credentials_in_params = true";

/** Those that keep their token when an answer brings none. */
const keepers = ["ng-token-auth", "angular-token", "devise-token-auth-client", "devise-axios"];

/** Those that load a page that a link has led to once more, without the session in its URL. */
const reloaders = ["j-toker", "devise-token-auth-client"];

const intercepted = { note: "with the interceptors", variant: "-interceptors" };

export const clients = [
  ...keepers.map((name) => ({ name, settings: [[], [FORGIVE]] })),
  { name: "devise-axios", ...intercepted, settings: [[FORGIVE]] },
  { name: "j-toker", settings: [[], [REPEAT], [REPEAT, FORGIVE]] },
  { name: "redux-token-auth", settings: [[], [REPEAT, PARAMS], [REPEAT, PARAMS, FORGIVE]] },
  { name: "redux-token-auth", ...intercepted, settings: [[REPEAT, PARAMS]] },
].map((client) => ({
  ...client,
  version: version(client.name),
  page: client.name + (client.variant ?? ""),
  reloads: reloaders.includes(client.name),
}));
