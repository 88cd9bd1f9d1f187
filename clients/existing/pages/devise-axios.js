import axios from "axios";
import { getTokens, initMiddleware } from "devise-axios";

// It looks after the tokens of an application that calls the routes itself.
const ready = initMiddleware({ authPrefix: "/auth" });
const auth = (method, path, data) => axios({ method, url: `${window.api}/auth${path}`, data }).then(({ data }) => data);
const validate = async () => (await auth("get", "/validate_token")).data.email;

window.client = {
  ready: ready.then(async () => ((await getTokens(localStorage))["access-token"] ? validate().catch(() => null) : null)),
  signUp: async ({ email, password }) => (await auth("post", "", { email, password, password_confirmation: password })).data.email,
  signIn: async (who) => (await auth("post", "/sign_in", who)).data.email,
  validate,
  get: (path) => axios.get(window.api + path).then(() => true, () => false),
  signOut: () => auth("delete", "/sign_out"),
  token: () => localStorage.getItem("access-token"),
};
