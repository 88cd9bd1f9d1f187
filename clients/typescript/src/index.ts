export { Baton, type BatonOptions, type Device, type SessionInfo, type User } from "./baton.js";
export { BatonError } from "./errors.js";
export type { Events } from "./events.js";
export type { Landing } from "./landing.js";
export { generation, type Session } from "./session.js";
export { localStorageStorage, memoryStorage, type Storage } from "./storage.js";
export type { HeaderNames } from "./wire.js";
