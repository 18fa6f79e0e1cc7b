import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { AuditLog, type AuditLogOptions } from '../../src/audit/log.js';
import { Seals } from '../../src/audit/seals.js';
import { type AuditFinding, type AuditReport, verifyAudit } from '../../src/audit/verify.js';
import { FilesystemDriver } from '../../src/storage/filesystem.js';

const GIB = 1024 ** 3;

/** A folder of audit logs, with the data that holds their seals, and what is reported of them. */
export class AuditFolder {
  readonly reported: string[] = [];

  private constructor(
    readonly root: string,
    readonly driver: FilesystemDriver,
    readonly seals: Seals,
  ) {}

  static async create(t: TestContext): Promise<AuditFolder> {
    const root = await mkdtemp(join(tmpdir(), 'registry-secure-audit-'));
    t.after(() => rm(root, { recursive: true }));
    const driver = new FilesystemDriver({ root: join(root, 'data') });
    await driver.open();
    return new AuditFolder(root, driver, (await Seals.open(driver, { make: true }))!);
  }

  get folder(): string {
    return join(this.root, 'audit');
  }

  open(options: Partial<AuditLogOptions> = {}): Promise<AuditLog> {
    const report = (message: string) => void this.reported.push(message);
    return AuditLog.open({
      folder: this.folder,
      seals: this.seals,
      rotateSize: GIB,
      rotateAge: 24 * 3_600_000,
      keep: GIB,
      program: 'test',
      report: { error: report, warn: report, info: report },
      ...options,
    });
  }

  /** The names of its files, in order. */
  async files(): Promise<string[]> {
    return (await readdir(this.folder)).filter(name => name.endsWith('.jsonl')).sort();
  }

  path(name: string): string {
    return join(this.folder, name);
  }

  async lines(name: string): Promise<string[]> {
    return (await readFile(this.path(name), 'utf8')).split('\n').slice(0, -1);
  }

  async events(folder = this.folder): Promise<Array<Record<string, unknown>>> {
    const names = (await readdir(folder)).filter(name => name.endsWith('.jsonl')).sort();
    const texts = await Promise.all(names.map(name => readFile(join(folder, name), 'utf8')));
    const lines = texts.flatMap(text => text.split('\n').slice(0, -1));
    return lines.map(line => JSON.parse(line) as Record<string, unknown>);
  }

  async verify(
    folder = this.folder,
  ): Promise<{ report: AuditReport; findings: AuditFinding[]; notes: string[]; kinds: string[] }> {
    const findings: AuditFinding[] = [];
    const notes: string[] = [];
    const report = await verifyAudit(folder, this.seals, {
      onFinding: finding => findings.push(finding),
      onNote: note => notes.push(note),
    });
    return { report, findings, notes, kinds: findings.map(({ kind }) => kind) };
  }
}
