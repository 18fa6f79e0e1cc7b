/** What to do about a URL that has more than the address of a service: such may hold a secret, and messages name the URL. */
export const ADDRESS_ONLY = {
  what: 'holds more than an address: a user, a query or a fragment',
  fix: 'write scheme, host, port and path only; logins have keys of their own',
};

/** Whether a URL that can be parsed holds what is not of the address. */
export function isMoreThanAddress(url: string): boolean {
  // An empty query or fragment is none to the parser.
  if (/[?#]/.test(url)) return true;
  const { username, password } = new URL(url);
  return username !== '' || password !== '';
}
