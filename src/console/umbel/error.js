// What is told to the program.

/** Browsers tell a page no more of a handshake that failed. */
export const UNKNOWN_FAILURE =
  "no connection: no server there, no WebSocket at this address, or it was refused";

/** Why something was not done. `code` is the server's, or one of our own: see umbel.d.ts. */
export class UmbelError extends Error {
  constructor(code, message, retryMs) {
    super(message);
    Object.assign(this, { name: "UmbelError", code, isRetried: false, retryMs });
  }
}

/** Calls what the program gave, by itself: what that throws is an unhandled rejection. */
export const tell = async (callback, ...args) => callback?.(...args);
