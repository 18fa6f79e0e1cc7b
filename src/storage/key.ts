/** Defence in depth: `store/layout.ts` makes no key that leaves its place. @throws TypeError */
export function checkKey(key: string): void {
  if (/[\0\\]|(?:^|\/)\.{0,2}(?:\/|$)/.test(key)) throw new TypeError(`not a storage key: ${JSON.stringify(key)}`);
}
