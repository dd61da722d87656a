// Positions: `epoch:offset`, sixteen hexadecimal digits and a decimal number of 64 bits.

export function parsePosition(text) {
  const parts = typeof text === "string" ? /^([0-9a-f]{16}):(\d{1,20})$/i.exec(text) : null;
  const offset = BigInt(parts?.[2] ?? 0);
  const isPosition = parts !== null && offset === BigInt.asUintN(64, offset);
  if (!isPosition) throw new TypeError(`${text} is no position`);
  return { epoch: parts[1].toLowerCase(), offset };
}

export const formatPosition = (position) => position && `${position.epoch}:${position.offset}`;
export const nextPosition = (position) => position && { ...position, offset: position.offset + 1n };
