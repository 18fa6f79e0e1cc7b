/** Defence in depth: `store/layout.ts` makes no key that leaves its place. @throws TypeError */
export function checkKey(key: string): void {
  if (/[\0\\]/.test(key) || key.split('/').some(part => part === '' || part === '.' || part === '..'))
    throw new TypeError(`not a storage key: ${JSON.stringify(key)}`);
}
