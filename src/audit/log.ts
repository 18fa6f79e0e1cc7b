import { hostname } from 'node:os';
import { join } from 'node:path';
import { OperatorError, systemCode } from '../errors.js';
import { type Anchor, fileName, lineOf, NO_HASH, newChainId, openingFields, type Position } from './chain.js';
import { type AuditEvent, fieldsOf } from './event.js';
import { Part } from './part.js';
import { letGo } from './retention.js';
import type { Seals } from './seals.js';

export interface AuditLogOptions {
  readonly folder: string;
  readonly seals: Seals;
  /** A file that has grown to so many bytes, or is so old (ms), is followed by another one. */
  readonly rotateSize: number;
  readonly rotateAge: number;
  /** Bytes of all files together; beyond it the oldest go. */
  readonly keep: number;
  /** What runs: `serve`, or a command. */
  readonly program: string;
  readonly report: Report;
}

/** Where it is told what goes wrong with the log itself. */
type Report = Readonly<
  Record<'error' | 'warn' | 'info', (message: string, fields?: Readonly<Record<string, unknown>>) => void>
>;

/** Between a line and the moment its head is on the disk (ms). */
const SEAL = 1_000;
/** Between two tries when the file cannot be written (ms). */
const RETRY = 1_000;
/** Events that wait for a disk with room are counted in place of being kept beyond this (bytes). */
const BACKLOG = 16 * 1024 * 1024;
const BATCH = 256 * 1024;
/** Nobody waits longer for a line to be written (ms). */
const LONGEST_WAIT = 1_000;
/** How long `close` tries to write what waits (ms). */
const PATIENCE = 5_000;
/** So many of the newest chains are named in a new one. */
const MOST_ANCHORS = 32;

interface Waiting {
  readonly time: string;
  readonly fields: string;
  /** Called when it is written, or cannot be for now. */
  readonly done?: (() => void) | undefined;
}

/** Lines that have their place in the chain, and are yet to be written. */
interface Batch {
  readonly bytes: Buffer;
  readonly end: Position;
  readonly done: ReadonlyArray<() => void>;
}

/**
 * The audit log of this process: a chain of its own. `record` takes an event and waits for nothing; what it took is
 * written at once, in the background, and flushed and sealed within a second. While the disk takes nothing, events wait in
 * memory, and beyond `BACKLOG` they are counted: a line then says how many are missing, and from when to when. Nobody's
 * request fails because of it.
 */
export class AuditLog {
  #end: Position = { seq: 0, hash: NO_HASH };
  #part: Part | undefined;
  #number = 0;
  /** When its file was begun, and the number of the line that it begins with. */
  #opened = 0;
  #first = 0;
  #waiting: Waiting[] = [];
  #bytes = 0;
  #lost: { count: number; since: string; until: string } | undefined;
  #batch: Batch | undefined;
  #writing: Promise<void> | undefined;
  #sealing: Promise<void> | undefined;
  #sealed: Position = this.#end;
  /** Whether the file is not where it was put, so that another one must be begun. */
  #displaced = false;
  #closing = false;
  #retry: NodeJS.Timeout | undefined;
  #seal: NodeJS.Timeout | undefined;
  #tidying: Promise<void> = Promise.resolve();
  readonly #started: string;
  readonly #writeTrouble: Trouble;
  readonly #sealTrouble: Trouble;
  readonly #atExit = () => this.#writeRestNow();

  private constructor(
    readonly chain: string,
    private readonly options: AuditLogOptions,
    now: Date,
  ) {
    this.#started = now.toISOString();
    this.#writeTrouble = new Trouble('written', options.report);
    this.#sealTrouble = new Trouble('sealed', options.report);
  }

  /** Begins a chain. @throws OperatorError where its first line cannot be written; StorageError where it cannot be sealed */
  static async open(options: AuditLogOptions): Promise<AuditLog> {
    const now = new Date();
    const log = new AuditLog(newChainId(now), options, now);
    const others = await log.#anchors();
    // Before there is a file: one without a head is somebody else's.
    await log.#writeHead(1, log.#end, false);
    try {
      await log.#begin(others);
      await log.#drain();
    } catch (error) {
      await log.#undo();
      throw new OperatorError(
        `the audit log in ${options.folder} cannot be written (${systemCode(error) ?? (error as Error).message})`,
        {
          fix: 'let this user write there, or name another folder: audit.folder (REGISTRY_AUDIT_FOLDER)',
          cause: error,
        },
      );
    }
    process.on('exit', log.#atExit);
    log.#sealSoon();
    log.#tidy();
    return log;
  }

  /** Of a chain that could not be begun nothing stays, as far as that goes. */
  async #undo(): Promise<void> {
    await this.#part?.remove().catch(() => undefined);
    await this.options.seals.forgetHead(this.chain).catch(() => undefined);
  }

  /** Never waits, never throws. */
  record(event: AuditEvent): void {
    this.#take(event);
  }

  /**
   * As `record`, for what must not be answered before it is known to whoever reads the log: resolves when SIGKILL cannot
   * take the line away any more, or when the log is in trouble, or after a second.
   */
  async recorded(event: AuditEvent): Promise<void> {
    if (this.#retry) return this.#take(event);
    await new Promise<void>(resolve => {
      const timer = setTimeout(resolve, LONGEST_WAIT);
      this.#take(event, () => {
        clearTimeout(timer);
        resolve();
      });
    });
  }

  #take(event: AuditEvent, done?: () => void): void {
    const time = new Date().toISOString();
    if (this.#closing || this.#bytes > BACKLOG) {
      if (!this.#closing) this.#lose(time);
      done?.();
      return;
    }
    this.#tellLoss(time);
    this.#push({ time, fields: fieldsOf(event), done });
    this.#wake();
  }

  #lose(now: string): void {
    this.#lost ??= { count: 0, since: now, until: now };
    this.#lost.count++;
    this.#lost.until = now;
  }

  /** Writes what waits, ends the chain and seals it. Where that is not possible, it says what is lost. */
  async close(): Promise<void> {
    if (this.#closing) return;
    this.record({ type: 'audit.close', outcome: 'done' });
    this.#closing = true;
    clearTimeout(this.#seal);
    clearTimeout(this.#retry);
    const deadline = performance.now() + PATIENCE;
    await this.#writing?.catch(() => undefined);
    await this.#sealing;
    while (!(await this.#finished()) && performance.now() < deadline) await new Promise(done => setTimeout(done, 200));
    await this.#tidying;
    const lost = (this.#lost?.count ?? 0) + this.#waiting.length;
    if (lost > 0 || this.#batch)
      this.options.report.error('the last events are missing in the audit log', { at_least: Math.max(1, lost) });
    process.off('exit', this.#atExit);
    await this.#part?.close();
  }

  async #finished(): Promise<boolean> {
    try {
      await this.#drain();
      await this.#part!.sync();
      await this.#writeHead(this.#number, this.#end, true);
      return true;
    } catch {
      return false;
    }
  }

  #tellLoss(now: string): void {
    if (!this.#lost) return;
    const { count, since, until } = this.#lost;
    this.#lost = undefined;
    const what = { events: count, since, until };
    this.#push({ time: now, fields: fieldsOf({ type: 'audit.gap', outcome: 'failed', what }) });
  }

  #push(waiting: Waiting): void {
    this.#waiting.push(waiting);
    this.#bytes += waiting.fields.length;
  }

  #wake(): void {
    if (this.#writing || this.#retry) return;
    this.#writing = this.#write();
  }

  async #write(): Promise<void> {
    try {
      // What the same turn of the event loop brings is written together.
      await new Promise(setImmediate);
      await this.#drain();
      if (this.#lost) {
        this.#tellLoss(new Date().toISOString());
        await this.#drain();
      }
      this.#writeTrouble.over();
    } catch (error) {
      this.#writeTrouble.met(error);
      for (const done of [...(this.#batch?.done ?? []), ...this.#waiting.map(({ done }) => done)]) done?.();
      this.#tryAgain();
    } finally {
      this.#writing = undefined;
      this.#sealSoon();
    }
    if (this.#waiting.length > 0 && !this.#closing) this.#wake();
  }

  /** @throws system errors; what was not written then waits for the next call */
  async #drain(): Promise<void> {
    for (;;) {
      if (!this.#batch && this.#isOver()) await this.#rotate();
      this.#batch ??= this.#nextBatch();
      if (!this.#batch) return;
      const { bytes, end, done } = this.#batch;
      await this.#part!.append(bytes);
      this.#end = end;
      this.#batch = undefined;
      for (const told of done) told();
    }
  }

  #nextBatch(): Batch | undefined {
    let end = this.#end;
    let text = '';
    let taken = 0;
    const all: Array<() => void> = [];
    for (const { time, fields, done } of this.#waiting) {
      if (text.length > BATCH) break;
      const made = lineOf(this.chain, end, time, fields);
      text += `${made.line}\n`;
      end = made.end;
      taken++;
      this.#bytes -= fields.length;
      if (done) all.push(done);
    }
    if (taken === 0) return undefined;
    this.#waiting.splice(0, taken);
    return { bytes: Buffer.from(text, 'latin1'), end, done: all };
  }

  #isOver(): boolean {
    const { rotateSize, rotateAge } = this.options;
    if (this.#closing) return false;
    // Whatever its size, a file holds more than how it begins.
    const full = this.#part!.size >= rotateSize && this.#end.seq > this.#first;
    return this.#displaced || full || performance.now() - this.#opened >= rotateAge;
  }

  async #rotate(): Promise<void> {
    await this.#sealing;
    const before = this.#part!;
    // A disk that fails must not keep the next file from being begun.
    await before.sync().catch(error => this.#sealTrouble.met(error));
    await this.#begin();
    this.#displaced = false;
    await before.close();
    this.#tidy();
  }

  /** The next file, and the line with which it begins. @param others for the first one */
  async #begin(others?: readonly Anchor[]): Promise<void> {
    const number = this.#number + 1;
    this.#part = await Part.create(join(this.options.folder, fileName(this.chain, number)), {
      withFolder: others !== undefined,
    });
    this.#number = number;
    this.#opened = performance.now();
    const fields = openingFields({
      type: others ? 'audit.open' : 'audit.continue',
      part: number,
      pid: process.pid,
      host: hostname(),
      started: this.#started,
      program: this.options.program,
      ...(others && { others }),
    });
    const { line, end } = lineOf(this.chain, this.#end, new Date().toISOString(), fields);
    this.#batch = { bytes: Buffer.from(`${line}\n`), end, done: [] };
    this.#first = end.seq;
  }

  /** Where the chains before this one stand: none of them can vanish without this one telling. */
  async #anchors(): Promise<Anchor[]> {
    const { seals } = this.options;
    const anchors: Anchor[] = [];
    for (const chain of (await seals.chains()).slice(-MOST_ANCHORS)) {
      const head = await seals.head(chain);
      if (head && head !== 'forged' && head.seq > 0) anchors.push({ chain, seq: head.seq, hash: head.hash });
    }
    return anchors;
  }

  #sealSoon(): void {
    if (this.#seal || this.#closing) return;
    // An age that is over has another file made, also where nothing happens: a file that is as old as two is nobody's.
    const idle = this.#end.seq === this.#sealed.seq;
    const wait = idle ? Math.max(SEAL, this.options.rotateAge - (performance.now() - this.#opened)) : SEAL;
    this.#seal = setTimeout(
      () => {
        this.#seal = undefined;
        if (idle) this.#wake();
        else this.#sealing = this.#sealNow().finally(() => this.#sealSoon());
      },
      Math.min(wait, 2 ** 31 - 1),
    ).unref();
  }

  async #sealNow(): Promise<void> {
    const end = this.#end;
    const number = this.#number;
    const part = this.#part!;
    try {
      // Lines before their head: after a power cut no head may tell of more than there is.
      await part.sync();
      await this.#writeHead(number, end, false);
      this.#sealed = end;
      this.#sealTrouble.over();
    } catch (error) {
      this.#sealTrouble.met(error);
    }
    if (await part.isInPlace()) return;
    this.options.report.error('a file of the audit log was moved, removed or cut off; another one is begun', {
      file: part.path,
    });
    this.#displaced = true;
    this.#wake();
  }

  #writeHead(part: number, { seq, hash }: Position, closed: boolean): Promise<void> {
    return this.options.seals.writeHead({ chain: this.chain, part, seq, hash, closed });
  }

  #tryAgain(): void {
    if (this.#retry || this.#closing) return;
    this.#retry = setTimeout(() => {
      this.#retry = undefined;
      this.#wake();
    }, RETRY).unref();
  }

  #tidy(): void {
    const { folder, seals, keep, rotateAge, report } = this.options;
    this.#tidying = this.#tidying.then(async () => {
      try {
        const gone = await letGo({ folder, seals, keep, idle: 2 * rotateAge, own: this.chain });
        for (const file of gone) this.record({ type: 'audit.retire', outcome: 'done', what: { file } });
      } catch (error) {
        report.warn('old files of the audit log cannot be removed', { error });
      }
    });
  }

  /** For a process that ends without `close`: nothing can wait any longer, and the last head is older than the last line. */
  #writeRestNow(): void {
    try {
      for (let batch = this.#batch ?? this.#nextBatch(); batch; batch = this.#nextBatch()) {
        this.#part!.appendNow(batch.bytes);
        this.#end = batch.end;
      }
    } catch {
      // There is nobody left to tell.
    }
  }
}

/** Tells once that something cannot be done, and once that it can be done again. */
class Trouble {
  #reason: string | undefined;

  constructor(
    private readonly what: string,
    private readonly report: Report,
  ) {}

  met(error: unknown): void {
    const reason = systemCode(error) ?? (error as Error).message;
    if (this.#reason !== reason) this.report.error(`the audit log cannot be ${this.what}`, { error });
    this.#reason = reason;
  }

  over(): void {
    if (this.#reason !== undefined) this.report.info(`the audit log is ${this.what} again`);
    this.#reason = undefined;
  }
}
