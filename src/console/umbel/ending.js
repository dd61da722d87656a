// What the end of a connection, or a handshake that was refused, means for the next one.
//
// Close codes: RFC 6455 section 7.4.1, and the range that is left to programs, 4000 to 4999, where the
// server's own follow the statuses of HTTP.

export const NORMAL = 1000;
export const ABNORMAL = 1006;
/** Something sent was too big. */
export const TOO_BIG = 1009;
export const GIVEN_UP = 4001;
export const PROTOCOL_ERROR = 4002;

export const UNAUTHORIZED = 4401;
const FORBIDDEN = 4403;
const NOT_FOUND = 4404;
const AUTHENTICATION_TIMEOUT = 4408;
const TOO_MANY = 4429;

/** Another connection mends nothing, unless the server says when to come: so with 4000 to 4999. */
const FINAL_CODES = new Set([1002, 1003, 1007, 1008, 1010]);
const ERROR_CODES = new Map([
  [UNAUTHORIZED, "unauthorized"],
  [AUTHENTICATION_TIMEOUT, "unauthorized"],
  [FORBIDDEN, "forbidden"],
]);

const RETRY_HINT = /\bretry=(\d+(?:\.\d+)?)/;
const RETRY_HINT_S_MAX = 3600;
/** What the package `ws` says of a handshake that was refused for good. Browsers say nothing of one. */
const REFUSED_HANDSHAKE = /^Unexpected server response: (4(?!08|25)\d\d)$/;

/** Nothing but another token, or another right, lets it in. */
const DENIALS = new Set([UNAUTHORIZED, FORBIDDEN, AUTHENTICATION_TIMEOUT]);

/** As the first thing on a connection they refuse it: no command was carried out. */
const REFUSALS = new Set([UNAUTHORIZED, FORBIDDEN, NOT_FOUND, AUTHENTICATION_TIMEOUT, TOO_MANY]);

/**
 * `isFinal`: no further connection. `mayNeedToken`: another token might help. `hintMs`: how long the
 * server wants to be left alone. `isRefusal`: nothing was read, if nothing came before. `isDenial`: it is for the
 * token. `error`: the code of what is told to who waits.
 */
export function endingOf(code, reason) {
  const hint = RETRY_HINT.exec(reason);
  const isOfPrograms = code >= 4000 && code !== TOO_MANY;
  return {
    isFinal: hint === null && (isOfPrograms || FINAL_CODES.has(code)),
    isRefusal: REFUSALS.has(code),
    isDenial: DENIALS.has(code),
    mayNeedToken: code === UNAUTHORIZED || code === AUTHENTICATION_TIMEOUT,
    hintMs: Math.min(Number(hint?.[1] ?? 0), RETRY_HINT_S_MAX) * 1000,
    error: ERROR_CODES.get(code) ?? "closed",
  };
}

/** The close code that a server which can be seen would have given, if `failure` names a status. */
export function codeOfRefusal(failure) {
  const status = REFUSED_HANDSHAKE.exec(failure)?.[1];
  return status === undefined ? ABNORMAL : 4000 + Number(status);
}
