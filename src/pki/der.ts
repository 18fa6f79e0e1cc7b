import type forge from 'node-forge';
// The rest of the package is ten times as much, and would stay in the memory of each process.
import asn1 from 'node-forge/lib/asn1.js';

/**
 * ASN.1 in its distinguished encoding (DER, ITU-T X.690): the few types that certificates are made of. node-forge turns
 * trees into bytes and back; no key, signature or hash of its is used anywhere.
 */
const { UNIVERSAL, CONTEXT_SPECIFIC } = asn1.Class;
const Type = asn1.Type;

export type Der = forge.asn1.Asn1;

const bytes = (data: Uint8Array): string => Buffer.from(data).toString('latin1');
const primitive = (type: forge.asn1.Type, value: string): Der => asn1.create(UNIVERSAL, type, false, value);

/** Items that are undefined are left out: an OPTIONAL or DEFAULT field. */
export function sequence(...items: ReadonlyArray<Der | undefined>): Der {
  return asn1.create(
    UNIVERSAL,
    Type.SEQUENCE,
    true,
    items.filter(item => item !== undefined),
  );
}

export const set = (...items: readonly Der[]): Der => asn1.create(UNIVERSAL, Type.SET, true, [...items]);
export const oid = (dotted: string): Der => primitive(Type.OID, asn1.oidToDer(dotted).getBytes());
export const utf8String = (text: string): Der => primitive(Type.UTF8, bytes(Buffer.from(text, 'utf8')));
export const octetString = (data: Uint8Array): Der => primitive(Type.OCTETSTRING, bytes(data));
export const boolean = (value: boolean): Der => primitive(Type.BOOLEAN, value ? '\xff' : '\0');
export const nothing = (): Der => primitive(Type.NULL, '');
export const enumerated = (value: number): Der => primitive(Type.ENUMERATED, asn1.integerToDer(value).getBytes());
/** UTF-16 in big-endian order. */
export const bmpString = (text: string): Der => primitive(Type.BMPSTRING, bytes(Buffer.from(text, 'utf16le').swap16()));

/** A small number, or the big-endian bytes of a positive one whose first bit is 0. */
export function integer(value: number | Uint8Array): Der {
  return primitive(Type.INTEGER, typeof value === 'number' ? asn1.integerToDer(value).getBytes() : bytes(value));
}

export function bitString(data: Uint8Array, unusedBits = 0): Der {
  return primitive(Type.BITSTRING, String.fromCharCode(unusedBits) + bytes(data));
}

/** RFC 5280 section 4.1.2.5: two-digit years until 2049, four digits from 2050. */
export function time(at: Date): Der {
  return at.getUTCFullYear() < 2050
    ? primitive(Type.UTCTIME, asn1.dateToUtcTime(at))
    : primitive(Type.GENERALIZEDTIME, asn1.dateToGeneralizedTime(at));
}

/** @throws Error for what is none of the two types of time. */
export function readTime(tree: Der | undefined): Date {
  const text = content(tree).toString('latin1');
  if (tree?.type === Type.UTCTIME) return asn1.utcTimeToDate(text);
  if (tree?.type === Type.GENERALIZEDTIME) return asn1.generalizedTimeToDate(text);
  throw new Error('not a time');
}

/** The text of any of ASN.1's types of string. */
export function readText(tree: Der | undefined): string {
  const whole = content(tree);
  if (tree?.type === Type.BMPSTRING) return Buffer.from(whole).swap16().toString('utf16le');
  return whole.toString(tree?.type === Type.UTF8 ? 'utf8' : 'latin1');
}

/** `[number] EXPLICIT`, or a constructed IMPLICIT type of these items. */
export function tagged(number: number, ...items: readonly Der[]): Der {
  return asn1.create(CONTEXT_SPECIFIC, number as forge.asn1.Type, true, [...items]);
}

/** `[number] IMPLICIT` of a primitive type. */
export function taggedBytes(number: number, data: Uint8Array): Der {
  return asn1.create(CONTEXT_SPECIFIC, number as forge.asn1.Type, false, bytes(data));
}

export function encode(tree: Der): Buffer {
  return Buffer.from(asn1.toDer(tree).getBytes(), 'latin1');
}

/** @throws Error when the bytes are not DER. */
export function decode(der: Uint8Array): Der {
  return asn1.fromDer(bytes(der));
}

/** The bytes of the first item in a sequence, just as they are: what a signature was made over. */
export function firstBytes(der: Buffer): Buffer {
  const start = contentStart(der, 0).start;
  const first = contentStart(der, start);
  return der.subarray(start, first.start + first.length);
}

/** X.690 section 8.1.3: a length below 128 is one byte, a longer one the number of bytes that follow. */
function contentStart(der: Buffer, at: number): { start: number; length: number } {
  const short = der[at + 1]!;
  const more = short < 0x80 ? 0 : short & 0x7f;
  return { start: at + 2 + more, length: more === 0 ? short : der.readUIntBE(at + 2, more) };
}

/** The children of a constructed value; none of a primitive one. */
export function children(tree: Der | undefined): readonly Der[] {
  return Array.isArray(tree?.value) ? tree.value : [];
}

/** The content of a primitive value, for a bit string the first byte, which counts unused bits, included. */
export function content(tree: Der | undefined): Buffer {
  // node-forge parses what a bit string holds where it can, and keeps the original beside it.
  const whole = (tree as { bitStringContents?: string } | undefined)?.bitStringContents ?? tree?.value;
  return Buffer.from(typeof whole === 'string' ? whole : '', 'latin1');
}

/** The number in a context-specific tag, or undefined for any other tag. */
export function tagNumber(tree: Der): number | undefined {
  return tree.tagClass === CONTEXT_SPECIFIC ? tree.type : undefined;
}

export const isOid = (tree: Der | undefined, dotted: string): boolean =>
  content(tree).toString('latin1') === asn1.oidToDer(dotted).getBytes();

/** One or more PEM lines of 64 characters (RFC 7468). */
export function toPem(label: string, der: Uint8Array): string {
  const lines =
    Buffer.from(der)
      .toString('base64')
      .match(/.{1,64}/g) ?? [];
  return `-----BEGIN ${label}-----\n${lines.join('\n')}\n-----END ${label}-----\n`;
}
