import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import type { OutgoingHttpHeaders } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import bcrypt from 'bcryptjs';
import { type HostileTarget, hostileInput } from '../support/hostile.js';
import { LocalRegistry } from '../support/local-registry.js';
import { RegistryUnderTest } from '../support/registry-fixture.js';

const USERS = ['tester', 'mallory', 'insider'];
const PASSWORD = 'a word';

const POLICY = `
rules:
  - who: [user:tester, user:mallory]
    may: [push, delete]
    on: ["*", "a*/**"]
  - who: [user:insider]
    may: [push]
    on: [hidden/**]
`;

/** The program with two workers, over plain HTTP, with real users and rights. */
class TwoWorkers extends RegistryUnderTest implements HostileTarget {
  private constructor(
    private readonly dir: string,
    private readonly local: LocalRegistry,
  ) {
    super(local.port);
  }

  static async start(root: string): Promise<TwoWorkers> {
    const dir = mkdtempSync(join(tmpdir(), 'hostile-workers-'));
    const file = (name: string, text: string) => {
      writeFileSync(join(dir, name), text, { mode: 0o600 });
      return join(dir, name);
    };
    const hash = bcrypt.hashSync(PASSWORD, 4);
    const env = {
      REGISTRY_ACCESS_POLICY: file('policy.yml', POLICY),
      REGISTRY_AUTH_HTPASSWD_PATH: file('htpasswd', USERS.map(user => `${user}:${hash}\n`).join('')),
    };
    const args = ['--insecure-plain-http', '--allow-deletes', '--workers', '2', '--root', root];
    const local = await LocalRegistry.start(dir, ['up', ...args], { env });
    await local.until(() => /msg="all workers serve"/.test(local.stderr));
    return new TwoWorkers(dir, local);
  }

  as(user: string): string {
    return Object.entries(this.headersOf(user))
      .map(([name, value]) => `${name}: ${value}\r\n`)
      .join('');
  }

  protected override headersOf(user = 'tester'): OutgoingHttpHeaders {
    if (!USERS.includes(user)) return {};
    return { authorization: `Basic ${Buffer.from(`${user}:${PASSWORD}`).toString('base64')}` };
  }

  get faults(): readonly string[] {
    return this.local.stderr.split('\n').filter(line => /level=error|a worker has ended/.test(line));
  }

  async stop(): Promise<void> {
    this.close();
    assert.equal(await this.local.stop(), 0, this.local.stderr);
    rmSync(this.dir, { recursive: true });
  }
}

hostileInput('hostile input, to the program with two workers', root => TwoWorkers.start(root));
