import { readdir, stat } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { systemCode } from '../errors.js';
import { type Anchor, fileName, NO_HASH, type ParsedLine, type Position, parseFileName, parseLine } from './chain.js';
import { linesOf } from './lines.js';
import type { Head, Seals } from './seals.js';

/**
 * - `changed`: a line is not what was written, or stands where another one was.
 * - `lines-missing`: lines were taken out. `repeated`: a line stands there twice, or in another place.
 * - `cut-off`: the end of what was sealed is missing. `added`: lines follow the end of the chain.
 * - `file-missing`, `chain-missing`: a file, or all of a chain.
 * - `unsealed`: files of a chain that has no head. `forged`: a head, or a note of what was let go, that is not signed by us.
 */
type FindingKind =
  | 'changed'
  | 'lines-missing'
  | 'repeated'
  | 'cut-off'
  | 'added'
  | 'file-missing'
  | 'chain-missing'
  | 'unsealed'
  | 'forged';

export interface AuditFinding {
  readonly kind: FindingKind;
  readonly message: string;
  readonly chain?: string;
  readonly file?: string;
  /** In the file, from 1. */
  readonly line?: number;
}

export interface AuditReport {
  readonly chains: number;
  readonly files: number;
  readonly lines: number;
  readonly bytes: number;
  readonly findings: number;
}

export interface VerifyAuditOptions {
  /** What is wrong. */
  readonly onFinding: (finding: AuditFinding) => void;
  /** What is worth knowing, and no sign of anything wrong. */
  readonly onNote: (note: string) => void;
  readonly onProgress?: (bytes: number, total: number) => void;
}

/** Checks one file by itself: neither its end nor what stood before it can be known. @throws system errors */
export async function verifyFile(path: string, options: VerifyAuditOptions): Promise<AuditReport> {
  const { size } = await stat(path);
  const check = new Check(options, size);
  await check.file(path, { before: undefined, last: true });
  return { ...check.counts, chains: 1, files: 1 };
}

/**
 * Checks all chains of a folder against themselves, their heads and each other, while processes go on to write.
 * @throws StorageError, system errors
 */
export async function verifyAudit(folder: string, seals: Seals, options: VerifyAuditOptions): Promise<AuditReport> {
  // Heads first: whatever they tell of was written before.
  const heads = new Map<string, Head | 'forged' | undefined>();
  for (const chain of await seals.chains()) heads.set(chain, await seals.head(chain));
  const parts = new Map<string, number[]>();
  let total = 0;
  let files = 0;
  for (const name of await namesIn(folder)) {
    const parsed = parseFileName(name);
    if (!parsed) {
      options.onNote(`${name} is no file of the log`);
      continue;
    }
    parts.set(parsed.chain, [...(parts.get(parsed.chain) ?? []), parsed.part]);
    total += (await stat(join(folder, name)).catch(() => undefined))?.size ?? 0;
    files++;
  }
  const check = new Check(options, total);
  const named = await anchorsIn(folder, [...parts.keys()]);
  const chains = [...new Set([...heads.keys(), ...parts.keys(), ...named.keys()])].sort();
  for (const chain of chains) {
    const head = heads.get(chain) ?? (await seals.head(chain));
    const numbers = (parts.get(chain) ?? []).sort((a, b) => a - b);
    await new ChainCheck(check, folder, seals, chain, head, named.get(chain) ?? []).run(numbers);
  }
  return { ...check.counts, chains: chains.length, files };
}

/** Where a later chain says that another one stood. */
interface Named extends Anchor {
  readonly by: string;
}

async function anchorsIn(folder: string, chains: readonly string[]): Promise<Map<string, Named[]>> {
  const named = new Map<string, Named[]>();
  for (const chain of chains) {
    const by = fileName(chain, 1);
    const first = await firstLine(join(folder, by));
    for (const anchor of first?.others ?? [])
      named.set(anchor.chain, [...(named.get(anchor.chain) ?? []), { ...anchor, by }]);
  }
  return named;
}

async function firstLine(path: string): Promise<ParsedLine | undefined> {
  try {
    for await (const { bytes, whole } of linesOf(path)) return whole ? parseLine(bytes) : undefined;
  } catch (error) {
    if (systemCode(error) !== 'ENOENT') throw error;
  }
  return undefined;
}

async function namesIn(folder: string): Promise<string[]> {
  try {
    return (await readdir(folder)).sort();
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return [];
    throw error;
  }
}

/** One chain: which files there must be, and where its lines must lead. */
class ChainCheck {
  #unknownEnd = false;

  constructor(
    private readonly check: Check,
    private readonly folder: string,
    private readonly seals: Seals,
    private readonly chain: string,
    private readonly head: Head | 'forged' | undefined,
    private readonly named: readonly Named[],
  ) {}

  /** @param present the numbers of its files, in order */
  async run(present: readonly number[]): Promise<void> {
    const { chain, check } = this;
    const head = this.head === 'forged' ? undefined : this.head;
    if (this.head === 'forged') this.#find('forged', `the head of the chain ${chain} was not signed by this registry`);
    const sealed = Array.from({ length: head && head.seq > 0 ? head.part : 0 }, (_, index) => index + 1);
    const wanted = [...new Set([...sealed, ...present])].sort((a, b) => a - b);
    let end: Position | undefined = { seq: 0, hash: NO_HASH };
    let open = 0;
    for (const part of wanted) {
      const file = fileName(chain, part);
      const path = join(this.folder, file);
      const expected: Expected = { before: end, chain, part, head, named: this.named, last: part === wanted.at(-1) };
      const read: Reached | undefined = present.includes(part) ? await check.file(path, expected) : undefined;
      if (read) {
        end = read.end;
        open++;
      } else end = await this.#withoutFile(file, part);
    }
    if (open > 0 && this.head === undefined)
      this.#find('unsealed', `the chain ${chain} has no head: it was removed, or these files are of somebody else`);
    if (this.#unknownEnd) return;
    if (wanted.length === 0 && this.named.length > 0 && !(await this.#wasLetGo())) {
      const [{ by }] = this.named as [Named];
      this.#find('chain-missing', `the chain ${chain} is missing: ${by} names it`);
      return;
    }
    if (open === 0) return;
    const reached = end?.seq ?? 0;
    if (head && reached < head.seq)
      this.#find('cut-off', `the chain ${chain} ends with line ${reached} of ${head.seq} that were sealed`);
    const further = this.named.find(({ seq }) => seq > Math.max(reached, head?.seq ?? 0));
    if (further)
      this.#find('cut-off', `the chain ${chain} ends with line ${reached}; ${further.by} has seen line ${further.seq}`);
    if (head && !head.closed && reached > head.seq)
      check.options.onNote(`the chain ${chain} has ${reached - head.seq} lines after its last seal, and no end`);
  }

  /** Where the chain stood after a file that is not there. */
  async #withoutFile(file: string, part: number): Promise<Position | undefined> {
    const retired = await this.seals.retired(file);
    if (retired === 'forged') this.#find('forged', `that ${file} was let go is not signed by this registry`, file);
    else if (retired) return retired.end;
    else this.#find('file-missing', `${file} is missing`, file);
    if (this.head && this.head !== 'forged' && part >= this.head.part) this.#unknownEnd = true;
    return undefined;
  }

  /** Whether the last that was heard of the chain is in a file of which it is known that it was let go. */
  async #wasLetGo(): Promise<boolean> {
    const files = (await this.seals.retiredFiles()).filter(file => parseFileName(file)!.chain === this.chain);
    const notes = await Promise.all(files.map(file => this.seals.retired(file)));
    const most = Math.max(...this.named.map(({ seq }) => seq));
    return notes.some(note => note && note !== 'forged' && (note.end?.seq ?? most) >= most);
  }

  #find(kind: FindingKind, message: string, file?: string): void {
    this.check.found({ kind, message, chain: this.chain, ...(file !== undefined && { file }) });
  }
}

interface Expected {
  /** What the first line must follow; undefined where that is not known. */
  readonly before: Position | undefined;
  readonly chain?: string;
  readonly part?: number;
  readonly head?: Head | undefined;
  readonly named?: readonly Named[];
  /** Whether no other file follows. */
  readonly last: boolean;
}

/** Where a file ends in its chain; undefined where that cannot be said. */
interface Reached {
  readonly end: Position | undefined;
}

/** Reads files line by line, and keeps the account of all of them. */
class Check {
  #lines = 0;
  #bytes = 0;
  #findings = 0;

  constructor(
    readonly options: VerifyAuditOptions,
    private readonly total: number,
  ) {}

  get counts(): Pick<AuditReport, 'lines' | 'bytes' | 'findings'> {
    return { lines: this.#lines, bytes: this.#bytes, findings: this.#findings };
  }

  found(finding: AuditFinding): void {
    this.#findings++;
    this.options.onFinding(finding);
  }

  /** @returns undefined where there is no such file */
  async file(path: string, expected: Expected): Promise<Reached | undefined> {
    const name = basename(path);
    const before = this.#bytes;
    let end = expected.before;
    let number = 0;
    try {
      for await (const { bytes, whole, done } of linesOf(path)) {
        number++;
        this.#bytes = before + done;
        this.options.onProgress?.(this.#bytes, this.total);
        if (whole) end = this.#line(bytes, { name, number, end, ...expected });
        else this.#torn(name, number, expected);
      }
    } catch (error) {
      if (systemCode(error) === 'ENOENT') return undefined;
      throw error;
    }
    return { end };
  }

  /** @returns what the next line must follow */
  #line(
    bytes: Buffer,
    expected: Expected & { name: string; number: number; end: Position | undefined },
  ): Position | undefined {
    const { name: file, number: line, end, chain, part, head, named = [] } = expected;
    this.#lines++;
    const find = (kind: FindingKind, message: string) =>
      this.found({ kind, message, file, line, ...(chain !== undefined && { chain }) });
    const parsed = parseLine(bytes);
    if (!parsed) {
      find('changed', `line ${line} of ${file} is no line of the log`);
      return undefined;
    }
    const { seq, hash, prev } = parsed;
    if (chain !== undefined && parsed.chain !== chain) find('changed', `line ${line} of ${file} is of another chain`);
    else if (line === 1 && part !== undefined && parsed.part !== part)
      find('changed', `${file} does not begin as it was begun`);
    if (end && seq <= end.seq) {
      find('repeated', `line ${line} of ${file} (number ${seq}) stands there again, or in another place`);
      return end;
    }
    if (end && seq > end.seq + 1)
      find('lines-missing', `${seq - end.seq - 1} lines are missing before line ${line} of ${file} (number ${seq})`);
    else if (end && prev !== end.hash)
      find('changed', `what stands before line ${line} of ${file} (number ${seq}) is not what was written`);
    if (head && seq === head.seq && hash !== head.hash)
      find('changed', `line ${line} of ${file} (number ${seq}) is not what was sealed`);
    for (const anchor of named)
      if (anchor.seq === seq && anchor.hash !== hash)
        find('changed', `line ${line} of ${file} (number ${seq}) is not what ${anchor.by} has seen`);
    if (head?.closed && seq > head.seq)
      find('added', `line ${line} of ${file} (number ${seq}) stands after the end of its chain`);
    if (parsed.type === 'audit.gap')
      this.options.onNote(`line ${line} of ${file} tells of events that could not be written`);
    return { seq, hash };
  }

  /** A process that was killed leaves at most the beginning of its last line. */
  #torn(file: string, line: number, { chain, head, last }: Expected): void {
    if (last && !head?.closed)
      this.options.onNote(
        `${file} ends with a line that was not written to its end: its process was killed, or writes now`,
      );
    else
      this.found({
        kind: 'changed',
        message: `line ${line} of ${file} has no end`,
        file,
        line,
        ...(chain && { chain }),
      });
  }
}
