import { createHash, randomBytes } from 'node:crypto';
import { ascii } from './event.js';

/**
 * The format of the log: lines of JSON, each with the SHA-256 of the line before it, so that none can be changed, moved or
 * taken out unseen. A process writes a chain of its own, in files of its own, one after the other:
 *
 *     20261127T114012Z-5f0c9a1e.000001.jsonl
 *
 * Pure functions.
 */

/** What stands in the place of a hash before the first line of a chain. */
export const NO_HASH = '0'.repeat(64);

/** Longer lines are none of ours. In bytes, with the newline. */
export const LONGEST_LINE = 1024 * 1024;

/** The end of a line that counts: its number in the chain and the hash of its bytes, without the newline. */
export interface Position {
  readonly seq: number;
  readonly hash: string;
}

/** Where another chain stood when this one began. */
export interface Anchor extends Position {
  readonly chain: string;
}

/** @param more the further fields, as `fieldsOf` gives them */
export function lineOf(chain: string, before: Position, time: string, more: string): { line: string; end: Position } {
  const seq = before.seq + 1;
  const line = `{"chain":"${chain}","seq":${seq},"prev":"${before.hash}","time":"${time}",${more}}`;
  return { line, end: { seq, hash: hashOf(line) } };
}

export function hashOf(line: string | Uint8Array): string {
  return createHash('sha256').update(line).digest('hex');
}

/** Begins with the time, so that names sort by it. */
export function newChainId(now: Date): string {
  return `${now.toISOString().replace(/[-:]|\.\d+/g, '')}-${randomBytes(4).toString('hex')}`;
}

export const CHAIN_ID = /^\d{8}T\d{6}Z-[0-9a-f]{8}$/;

export function startOf(chain: string): Date {
  const [, ...parts] = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z/.exec(chain)!;
  const [year, month, day, hour, minute, second] = parts;
  return new Date(`${year}-${month}-${day}T${hour}:${minute}:${second}Z`);
}

/** @param part from 1 */
export function fileName(chain: string, part: number): string {
  return `${chain}.${String(part).padStart(6, '0')}.jsonl`;
}

/** Undefined for any other file. */
export function parseFileName(name: string): { chain: string; part: number } | undefined {
  const [, chain, part] = /^(\d{8}T\d{6}Z-[0-9a-f]{8})\.(\d{6,})\.jsonl$/.exec(name) ?? [];
  return chain === undefined ? undefined : { chain, part: Number(part) };
}

/** What the first line of each file says beside its place in the chain: whose it is, and which chains there were before. */
export interface Opening {
  readonly type: 'audit.open' | 'audit.continue';
  readonly part: number;
  readonly pid: number;
  readonly host: string;
  /** RFC 3339: when the process began the chain. */
  readonly started: string;
  readonly program: string;
  /** Of the first file of a chain. */
  readonly others?: readonly Anchor[];
}

export function openingFields(opening: Opening): string {
  return ascii(JSON.stringify({ ...opening, host: opening.host.slice(0, 255) })).slice(1, -1);
}

/** A line that was read; undefined for bytes that are none of ours. */
export interface ParsedLine extends Position {
  readonly chain: string;
  readonly prev: string;
  readonly type: string;
  readonly part: number | undefined;
  readonly others: readonly Anchor[];
}

/** @param bytes without the newline */
export function parseLine(bytes: Uint8Array): ParsedLine | undefined {
  let value: unknown;
  try {
    value = JSON.parse(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('utf8'));
  } catch {
    return undefined;
  }
  const { chain, seq, prev, type, part, others } = (value ?? {}) as Record<string, unknown>;
  if (typeof chain !== 'string' || typeof prev !== 'string' || typeof type !== 'string') return undefined;
  if (!Number.isSafeInteger(seq)) return undefined;
  return {
    chain,
    seq: seq as number,
    prev,
    type,
    hash: hashOf(bytes),
    part: typeof part === 'number' ? part : undefined,
    others: Array.isArray(others) ? others.filter(isAnchor) : [],
  };
}

function isAnchor(value: unknown): value is Anchor {
  const { chain, seq, hash } = (value ?? {}) as Record<string, unknown>;
  return typeof chain === 'string' && CHAIN_ID.test(chain) && Number.isSafeInteger(seq) && typeof hash === 'string';
}
