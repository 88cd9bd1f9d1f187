import $ from "jquery";
import "j-toker";

const { auth } = $;
const token = () => auth.retrieveData("authHeaders")?.["access-token"];
/** jQuery's promises of old, as promises. */
const settled = (deferred) => new Promise((resolve, reject) => deferred.then(resolve, reject));

window.client = {
  // It validates by itself when it is configured.
  ready: settled(auth.configure({ apiUrl: window.api })).then(
    (user) => user.email,
    () => null,
  ),
  signUp: async ({ email, password }) => {
    const body = await settled(auth.emailSignUp({ email, password, password_confirmation: password }));
    return body.data.email;
  },
  signIn: async (who) => {
    await settled(auth.emailSignIn({ ...who }));
    return auth.user.email;
  },
  validate: async () => (await settled(auth.validateToken())).email,
  get: (path) => settled($.ajax({ url: window.api + path })).then(() => true, () => false),
  requestReset: ({ email }) => settled(auth.requestPasswordReset({ email })),
  setPassword: (password) => settled(auth.updatePassword({ password, password_confirmation: password })),
  signOut: () => settled(auth.signOut()),
  token,
};
