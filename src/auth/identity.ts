/** Who is asking. Made only by `Authenticator.authenticate`; what it may do is decided only by `authorise`. */
export type Identity = { readonly kind: 'anonymous' } | { readonly kind: 'user'; readonly name: string };

export const ANONYMOUS: Identity = { kind: 'anonymous' };
