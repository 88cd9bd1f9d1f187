import Client from "devise-token-auth-client";

let email = null;
// It validates by itself when it is made and has credentials, and tells a store what it has found.
const dispatch = ({ type, payload }) => {
  if (type.endsWith(":UPDATE_USER")) email = payload.email;
};
const client = new Client({
  baseURL: window.api,
  dispatch,
  location: location.href,
  redirect: (url) => location.replace(url),
});

window.client = {
  ready: client.isInitialized.then(() => email),
  signUp: async ({ email, password }) => (await client.emailSignUp({ email, password, passwordConfirmation: password })).email,
  signIn: async (who) => (await client.emailSignIn({ ...who })).email,
  validate: async () => (await client.validateToken()).email,
  get: (path) => client.get(path).then(() => true, () => false),
  requestReset: ({ email }) => client.passwordResetRequest({ email, redirectUrl: location.href }),
  // It has no function for that.
  setPassword: (password) => client.put("auth/password", { password, password_confirmation: password }),
  signOut: () => client.signOut(),
  token: async () => (await client.session.get())["access-token"],
};
