import angular from "angular";
import "angular-cookie";
import "ng-token-auth";

angular.module("app", ["ng-token-auth"]).config(["$authProvider", (auth) => auth.configure({ apiUrl: window.api })]);
const injector = angular.bootstrap(document.body, ["app"]);
const auth = injector.get("$auth");
const http = injector.get("$http");
/** Promises of AngularJS are settled by its digest alone, which those who use them from outside have to bring about. */
const settled = (promise) => new Promise((resolve, reject) => promise.then(resolve, reject));

window.client = {
  // It validates by itself when the page loads; `validateUser` joins that.
  ready: settled(auth.validateUser()).then(
    (user) => user.email,
    () => null,
  ),
  signUp: async ({ email, password }) => {
    const response = await settled(auth.submitRegistration({ email, password, password_confirmation: password }));
    return response.data.data.email;
  },
  signIn: async (who) => (await settled(auth.submitLogin({ ...who }))).email,
  validate: async () => (await settled(auth.validateToken())).email,
  get: (path) => settled(http.get(window.api + path)).then(() => true, () => false),
  requestReset: ({ email }) => settled(auth.requestPasswordReset({ email })),
  setPassword: (password) => settled(auth.updatePassword({ password, password_confirmation: password })),
  signOut: () => settled(auth.signOut()),
  token: () => auth.retrieveData("auth_headers")?.["access-token"],
};
