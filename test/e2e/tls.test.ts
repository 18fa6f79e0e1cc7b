import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { createListener, type Listener } from '../../src/server/listener.js';
import { memoryLog, PAIR } from '../support/listener.js';
import { type Output, requireTools, run } from '../support/process.js';

// OpenSSL's and curl's own view of the listener, over loopback.
describe('TLS as openssl and curl see it', { timeout: 240_000 }, () => {
  let folder: string;
  let ca: string;
  let listener: Listener;
  let address: string;
  const lines: Parameters<typeof memoryLog>[0] = [];

  before(async () => {
    requireTools('openssl', 'curl');
    folder = mkdtempSync(join(tmpdir(), 'registry-secure-tls-'));
    ca = join(folder, 'ca.crt');
    writeFileSync(ca, PAIR.certificate);
    listener = createListener({
      handler: (_request, response) => response.end('served\n'),
      tls: { ...PAIR, minimumVersion: 'tls1.2' },
      log: memoryLog(lines),
    });
    address = `127.0.0.1:${(await listener.listen({ host: '127.0.0.1', port: 0 })).port}`;
  });
  after(async () => {
    await listener?.drain(0);
    if (folder) rmSync(folder, { recursive: true });
  });

  const client = (args: string, input = ''): Promise<Output> =>
    run(['openssl', 's_client', '-connect', address, '-CAfile', ca, '-verify_return_error', ...args.split(' ')], {
      input,
      timeout: 15_000,
    });

  test('a client may not renegotiate', async () => {
    const { stderr, stdout, status } = await client('-tls1_2', 'R\n');
    assert.match(stdout + stderr, /RENEGOTIATING[\s\S]*no renegotiation/);
    assert.notEqual(status, 0);
  });

  const weak = 'ALL:COMPLEMENTOFALL:@SECLEVEL=0';
  for (const [what, args] of [
    ['TLS 1.1', `-tls1_1 -cipher ${weak}`],
    ['TLS 1.0', `-tls1 -cipher ${weak}`],
    ['CBC', '-tls1_2 -cipher ECDHE-ECDSA-AES128-SHA256:ECDHE-ECDSA-AES256-SHA384:ECDHE-ECDSA-AES128-SHA'],
    ['suites without forward secrecy', '-tls1_2 -cipher kRSA:kPSK:@SECLEVEL=0'],
    ['suites without authentication', '-tls1_2 -cipher aNULL:eNULL:@SECLEVEL=0'],
    ['CCM', '-tls1_2 -cipher AESCCM'],
    ['HTTP/2', '-alpn h2'],
  ] as const)
    test(`${what}: refused`, async () => {
      const { stderr, stdout, status } = await client(args);
      assert.match(stderr, /alert (protocol version|handshake failure|no application protocol)/, stdout + stderr);
      assert.notEqual(status, 0);
    });

  for (const [args, wanted] of [
    ['-tls1_3', 'TLSv1.3, Cipher is TLS_AES_'],
    ['-tls1_2', 'TLSv1.2, Cipher is ECDHE-ECDSA-AES128-GCM-SHA256'],
    ['-tls1_2 -cipher ECDHE-ECDSA-CHACHA20-POLY1305', 'TLSv1.2, Cipher is ECDHE-ECDSA-CHACHA20-POLY1305'],
    ['-tls1_2 -curves P-256', 'Server Temp Key: ECDH, prime256v1'],
    ['-alpn h2,http/1.1', 'ALPN protocol: http/1.1'],
  ] as const)
    test(`openssl s_client ${args}: ${wanted}`, async () => {
      const { stdout, stderr, status } = await client(args);
      assert.ok(stdout.includes(wanted), stdout + stderr);
      assert.equal(status, 0);
    });

  test('no session is resumed, in either version', async () => {
    for (const version of ['-tls1_2', '-tls1_3']) {
      const session = join(folder, 'session');
      const request = 'GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n';
      await client(`${version} -ign_eof -sess_out ${session}`, request);
      const { stdout } = await client(`${version} -ign_eof -sess_in ${session}`, request);
      assert.match(stdout, /^New, TLSv1/m);
      assert.match(stdout, /served/);
    }
  });

  test('a client that does not know the authority is seen in the log', async () => {
    const { status } = await run(['openssl', 's_client', '-connect', address, '-verify_return_error'], {
      timeout: 15_000,
    });
    assert.notEqual(status, 0);
    const told = () => lines.find(line => /does not trust/.test(line.message));
    while (!told()) await new Promise(resolve => setTimeout(resolve, 5));
    assert.deepEqual(told(), {
      level: 'info',
      message: 'a client does not trust the certificate',
      fields: { remote: '127.0.0.1', alert: 'unknown_ca' },
    });
  });

  test('curl over http is told to use https, over https it is served', async () => {
    const plain = await run(['curl', '-sS', '-w', '%{http_code}', `http://${address}/v2/`]);
    assert.deepEqual([plain.status, /use https:\/\/[\s\S]*400$/i.test(plain.stdout)], [0, true], plain.stderr);
    const upload = await run(['curl', '-sS', '-w', '%{http_code}', '-d', 'x'.repeat(5_000), `http://${address}/v2/`]);
    assert.match(upload.stdout, /400$/, upload.stderr);
    assert.ok(lines.some(line => line.level === 'info' && /plain HTTP/.test(line.message)));
    const secure = await run(['curl', '-sS', '--cacert', ca, `https://${address}/v2/`]);
    assert.equal(secure.stdout, 'served\n', secure.stderr);
  });
});
