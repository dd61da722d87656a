// Requests to the server, with the token of whoever sits here. The token lives as long as the tab.

const KEY = "umbel-token";

/** How long an answer may take, in milliseconds. */
const ANSWER_TIMEOUT_MS = 10_000;

/** The token; empty for none. */
export const currentToken = () => sessionStorage.getItem(KEY) ?? "";

/** Keeps a token, or forgets it. */
export function keepToken(token) {
  if (token === "") sessionStorage.removeItem(KEY);
  else sessionStorage.setItem(KEY, token);
}

/** As `fetch`, with the token. It stands in a header, never in an address. */
export function request(path, options = {}) {
  const token = currentToken();
  const headers = { ...options.headers };
  if (token !== "") headers.Authorization = `Bearer ${token}`;
  return fetch(path, { ...options, headers });
}

/** Asks the control API. Resolves to the JSON of the answer; an error's message is for people. */
export async function ask(method, path, body) {
  const answer = await request(`/api/v1${path}`, {
    method,
    headers: body === undefined ? {} : { "Content-Type": "application/json" },
    body: body === undefined ? undefined : JSON.stringify(body),
    cache: "no-store",
    signal: AbortSignal.timeout(ANSWER_TIMEOUT_MS),
  });
  const value = await answer.json();
  if (answer.ok) return value;
  const error = new Error(value.error?.reason ?? answer.statusText);
  error.status = answer.status;
  throw error;
}

/** A query of parameters, without those that are empty. */
export function query(parameters) {
  const given = Object.entries(parameters).filter(([, value]) => value !== "" && value !== undefined);
  return given.length === 0 ? "" : `?${new URLSearchParams(given)}`;
}
