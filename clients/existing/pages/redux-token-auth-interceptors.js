import "./interceptors.js";
import "./redux-token-auth.js";
