import axios from "axios";
import { applyMiddleware, combineReducers, createStore } from "redux";
import thunk from "redux-thunk";
import { generateAuthActions, reduxTokenAuthReducer } from "redux-token-auth";

const initial = { reduxTokenAuth: { currentUser: { isLoading: false, isSignedIn: false, attributes: {} } } };
const store = createStore(combineReducers({ reduxTokenAuth: reduxTokenAuthReducer }), initial, applyMiddleware(thunk));
const { registerUser, signInUser, signOutUser, verifyCredentials } = generateAuthActions({
  authUrl: `${window.api}/auth`,
  userAttributes: { email: "email" },
  userRegistrationAttributes: {},
});
const { dispatch } = store;
const user = () => store.getState().reduxTokenAuth.currentUser;
const email = () => (user().isSignedIn ? user().attributes.email : null);

/** What `verifyCredentials` finds: it says so in the store alone. */
function verified() {
  verifyCredentials(store);
  return new Promise((resolve) => {
    const look = () => user().isLoading || resolve(email());
    store.subscribe(look);
    look();
  });
}

window.client = {
  ready: verified(),
  signUp: async ({ email: address, password }) => {
    await dispatch(registerUser({ email: address, password, passwordConfirmation: password }));
    return email();
  },
  signIn: async (who) => {
    await dispatch(signInUser({ ...who }));
    return email();
  },
  validate: async () => (await verified()) ?? Promise.reject(new Error("not signed in")),
  get: (path) => axios.get(window.api + path).then(() => true, () => false),
  signOut: () => dispatch(signOutUser()),
  token: () => localStorage.getItem("access-token"),
};
