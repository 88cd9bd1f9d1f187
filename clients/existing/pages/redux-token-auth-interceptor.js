// redux-token-auth in an application that takes tokens from the answers to its own requests too, as docs/clients.md advises.
import axios from "axios";
import "./redux-token-auth.js";

axios.interceptors.response.use((response) => {
  for (const name of ["access-token", "client", "uid", "expiry", "token-type"]) {
    if (!response.headers["access-token"]) break;
    axios.defaults.headers.common[name] = response.headers[name];
    localStorage.setItem(name, response.headers[name]);
  }
  return response;
});
