// Idempotency keys: each names one publish, however often it is sent.

const PREFIX_WORDS = 4;

/** Keys that no other client has: a random beginning, and a count. */
export function* idempotencyKeys(random) {
  const words = new Uint32Array(PREFIX_WORDS).map(() => Math.floor(random() * 2 ** 32));
  // Where there is a better source than the program's numbers, it is used besides.
  const better = new Uint32Array(PREFIX_WORDS);
  globalThis.crypto?.getRandomValues?.(better);
  const prefix = Array.from(words, (word, index) => ((word ^ better[index]) >>> 0).toString(36)).join("");
  for (let count = 0; ; count += 1) yield `${prefix}.${count.toString(36)}`;
}
