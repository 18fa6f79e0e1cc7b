/**
 * A JSON parser for content that several programs will read, each with its own parser: what they could read in
 * different ways is refused. It checks, without recursion, what `JSON.parse` lets pass: duplicate keys (RFC 8259 §4
 * calls their meaning unpredictable), depth, a byte order mark, `__proto__`.
 *
 * @param data UTF-8
 * @returns the value, which shares nothing with `data`
 * @throws SyntaxError that says what is wrong
 */
export function parseStrictJson(data: Uint8Array, maxDepth = 64): unknown {
  const text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(data);
  // First, since the walk below relies on well-formed text. V8's parser does not recurse.
  const value: unknown = JSON.parse(text);
  const open: Array<Set<string> | undefined> = [];
  for (let at = 0; at < text.length; at++) {
    const char = text.charCodeAt(at);
    if (char === 0x7b || char === 0x5b) {
      if (open.push(char === 0x7b ? new Set() : undefined) > maxDepth)
        throw new SyntaxError(`nested over ${maxDepth} deep`);
    } else if (char === 0x7d || char === 0x5d) open.pop();
    else if (char === 0x22) {
      const end = closingQuote(text, at);
      const keys = open.at(-1);
      if (keys && isKey(text, end)) {
        const key = JSON.parse(text.slice(at, end + 1)) as string;
        if (keys.has(key)) throw new SyntaxError(`duplicate key ${JSON.stringify(key.slice(0, 64))}`);
        if (key === '__proto__') throw new SyntaxError('the key "__proto__" is not allowed');
        keys.add(key);
      }
      at = end;
    }
  }
  return value;
}

function closingQuote(text: string, start: number): number {
  for (let at = start + 1; ; at++) {
    const char = text.charCodeAt(at);
    if (char === 0x5c) at++;
    else if (char === 0x22) return at;
  }
}

/** Whether the string that ends here is followed by a colon. */
function isKey(text: string, end: number): boolean {
  for (let at = end + 1; ; at++) {
    const char = text.charCodeAt(at);
    if (char !== 0x20 && char !== 0x09 && char !== 0x0a && char !== 0x0d) return char === 0x3a;
  }
}
