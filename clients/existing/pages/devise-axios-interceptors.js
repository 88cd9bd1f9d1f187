import "./interceptors.js";
import "./devise-axios.js";
