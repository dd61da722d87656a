// The token that the program gives.

/** A program that has not given its token by then has none, for now. */
const TOKEN_TIMEOUT_MS = 10_000;

/** What a refused token counts as: the close that the server would have given. */
const CLOSE_CODES = new Map([
  ["forbidden", 4403],
  ["rate_limited", 4429],
  ["unavailable", 1013],
]);

/** Whether there is no token, and so nothing to sign in with. */
export const isNothing = (token) => (token ?? "") === "";

/** Asks the program for a token. `reason` is `start`, `expiring` or `rejected`. */
export function askForToken(ask, reason, { setTimeout, clearTimeout }) {
  return new Promise((resolve, reject) => {
    const giveUp = () => reject(new Error("the program gave no token in time"));
    const timer = setTimeout(giveUp, TOKEN_TIMEOUT_MS);
    const answer = new Promise((take) => take(ask({ reason })));
    answer.then(resolve, reject).finally(() => clearTimeout(timer));
  });
}

/** The command that shows a token. */
export const authCommand = (token) => (id) => JSON.stringify({ type: "auth", id, token: String(token) });

/** Close code for an error with which the server refuses a token. */
export const codeOfRefusedToken = (code) => CLOSE_CODES.get(code) ?? 4401;
