import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { describe, test } from 'node:test';
import { connectLdap } from '../../src/auth/ldap/connection.js';
import { Directory } from '../../src/auth/ldap/directory.js';

/** A server of the test's own, which does with each connection what it is told. */
async function withServer(serve: (socket: Socket) => void, use: (url: string) => Promise<void>): Promise<void> {
  const sockets = new Set<Socket>();
  const server = createServer(socket => {
    sockets.add(socket.on('error', () => {}));
    serve(socket);
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  try {
    await use(`ldap://127.0.0.1:${(server.address() as AddressInfo).port}`);
  } finally {
    for (const socket of sockets) socket.destroy();
    server.close();
    await once(server, 'close');
  }
}

const AGREED = Buffer.from('300c02010178070a010004000400', 'hex');
const options = { startTls: true, authorities: undefined, timeout: 60_000 };

describe('StartTLS', () => {
  const refused = (answer: Buffer, message: RegExp) =>
    withServer(
      socket => socket.once('data', () => socket.write(answer)),
      url => assert.rejects(connectLdap({ ...options, url }), { message }),
    );

  test('not a byte may come behind its answer', async () => {
    await refused(Buffer.concat([AGREED, Buffer.from([0x30])]), /more than an answer came before TLS/);
    // The beginning of a forged answer to the bind that would follow.
    await refused(Buffer.concat([AGREED, Buffer.from('307f02010261070a01000400047f', 'hex')]), /more than an answer/);
  });

  test('a refusal, and what is no answer, end the connection', async () => {
    await refused(Buffer.from('300c02010178070a013404000400', 'hex'), /refuses StartTLS \(result code 52\)/);
    await refused(Buffer.from('300c02010178070a010104000400', 'hex'), /refuses StartTLS \(result code 1\)/);
    await refused(Buffer.from('300c02010261070a010004000400', 'hex'), /the answer to StartTLS is none/);
    await refused(Buffer.from('HTTP/1.1 400 Bad Request\r\n'.repeat(300)), /more than an answer|too long|is none/);
  });

  test('no password is sent before it', async () => {
    let sent = '';
    await withServer(
      // What is no TLS ends the handshake.
      socket =>
        socket.on('data', data => {
          sent += data.toString('latin1');
          socket.write(sent.length > 31 ? 'this is no TLS at all' : AGREED);
        }),
      async url => {
        const directory = new Directory({ ...options, url, account: undefined, onState: () => {} });
        await assert.rejects(
          directory.bind('cn=a', 'canary', async () => true),
          { status: 503 },
        );
        directory.close();
      },
    );
    assert.match(sent, /^0\x1d\x02\x01\x01w\x18\x80\x161\.3\.6\.1\.4\.1\.1466\.20037\x16\x03/);
    assert.doesNotMatch(sent, /canary/);
  });
});

describe('a server that is away', () => {
  test('is asked by one request at a time, and is told of once', async () => {
    let connections = 0;
    let answering = false;
    const states: Array<string | undefined> = [];
    await withServer(
      socket => {
        connections++;
        if (!answering) return socket.destroy();
        // A bind is answered with success, whatever its number.
        return socket.on('data', data => {
          const answer = Buffer.from('300c02010061070a010004000400', 'hex');
          answer[4] = data[4]!;
          socket.write(answer);
        });
      },
      async url => {
        const plain = { ...options, url, startTls: false, account: undefined };
        const directory = new Directory({ ...plain, onState: problem => states.push(problem) });
        const login = () =>
          directory.bind('cn=a', 'secret', async () => true).catch((error: { status: number }) => error.status);
        assert.equal(await login(), 503);
        assert.deepEqual(await Promise.all(Array.from({ length: 20 }, login)), Array(20).fill(503));
        // One may have found out whether it is back.
        assert.ok(connections <= 2, `${connections} connections`);
        const before = connections;
        answering = true;
        let last: unknown = 503;
        for (let tries = 0; tries < 600 && last === 503; tries++) {
          last = await login();
          await new Promise(resolve => setTimeout(resolve, 50));
        }
        assert.equal(last, true);
        assert.equal(connections, before + 1);
        assert.equal(states.length, 2);
        assert.equal(states[1], undefined);
        // And its connection is used again.
        assert.deepEqual([await login(), connections], [true, before + 1]);
        directory.close();
      },
    );
  });

  test('that says nothing is given up after the time-out', () =>
    withServer(
      () => {},
      async url => {
        await assert.rejects(connectLdap({ ...options, url, timeout: 50 }), /no answer within 50 ms/);
        await assert.rejects(
          connectLdap({ ...options, url: url.replace('ldap', 'ldaps'), startTls: false, timeout: 50 }),
          /no answer/,
        );
      },
    ));
});
