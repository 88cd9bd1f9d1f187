// What docs/clients.md advises applications to add that use axios.
import axios from "axios";

const names = ["access-token", "client", "uid", "expiry", "token-type"];
axios.interceptors.request.use((request) => {
  // Another tab may hold a newer one.
  if (localStorage.getItem("access-token")) names.forEach((name) => (request.headers[name] = localStorage.getItem(name)));
  return request;
});
axios.interceptors.response.use((response) => {
  if (response.headers["access-token"]) names.forEach((name) => localStorage.setItem(name, response.headers[name]));
  return response;
});
