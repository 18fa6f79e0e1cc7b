import assert from 'node:assert/strict';
import { test } from 'node:test';
import { OperatorError } from '../../src/errors.js';
import {
  covers,
  environmentNames,
  imageHost,
  ipBytes,
  ipFromBytes,
  isPrivateAddress,
  parseDns,
  parseImageHost,
  parseIp,
  parseName,
  parseNameList,
} from '../../src/pki/names.js';

function refused(parse: () => unknown, message: RegExp): void {
  assert.throws(parse, error => {
    assert.ok(error instanceof OperatorError, String(error));
    assert.match(error.message, message);
    assert.ok(error.fix, 'it says how to mend it');
    return true;
  });
}

test('addresses come out in one canonical form', () => {
  assert.equal(parseIp('192.168.0.12'), '192.168.0.12');
  assert.equal(parseIp('FD00:0:0:0:0:0:0:12'), 'fd00::12');
  assert.equal(parseIp('2001:0DB8::0001'), '2001:db8::1');
  assert.equal(parseIp('1:0:3:0:5:0:7:8'), '1:0:3:0:5:0:7:8');
  assert.equal(parseIp('64:ff9b::192.0.2.1'), '64:ff9b::c000:201');
});

test('an address that would mean another one, or nothing, is refused', () => {
  refused(() => parseIp('192.168.0.012'), /octal/);
  refused(() => parseIp('fe80::1%eth0'), /zone id/);
  refused(() => parseIp('[fd00::1]'), /brackets/);
  refused(() => parseIp('10.0.0.0/8'), /range/);
  refused(() => parseIp('10.0.0.1:5000'), /port/);
  refused(() => parseIp('10.0.0.256'), /neither IPv4 nor IPv6/);
  refused(() => parseIp('0.0.0.0'), /listens/);
  refused(() => parseIp('::'), /listens/);
  refused(() => parseIp('::ffff:10.0.0.1'), /IPv4 address/);
  refused(() => parseIp('registry.example.com'), /--dns|neither/);
  refused(() => parseIp(''), /neither/);
});

test('DNS names come out in lower case and ASCII', () => {
  assert.equal(parseDns('Registry.Example.COM'), 'registry.example.com');
  assert.equal(parseDns('bücher.example'), 'xn--bcher-kva.example');
  assert.equal(parseDns('*.Bücher.example'), '*.xn--bcher-kva.example');
  assert.equal(parseDns('reg'), 'reg');
  assert.equal(parseDns(`${'a'.repeat(63)}.b`), `${'a'.repeat(63)}.b`);
});

test('what is no DNS name is refused with its reason', () => {
  refused(() => parseDns('192.168.0.12'), /IP address/);
  // domainToASCII alone would make other addresses of these.
  for (const text of ['192.168.0.012', '0x7f000001', '127.1', '１２７.0.0.1', 'registry.1'])
    refused(() => parseDns(text), /number/);
  refused(() => parseDns('fd00::1'), /IP address/);
  refused(() => parseDns('https://reg.example'), /scheme/);
  refused(() => parseDns('reg.example:5000'), /port/);
  refused(() => parseDns('reg.example/v2'), /path/);
  refused(() => parseDns('my_host'), /character/);
  refused(() => parseDns('-a.example'), /hyphens/);
  refused(() => parseDns('a..example'), /empty part/);
  refused(() => parseDns('reg.example.'), /dot at the end/);
  refused(() => parseDns('two words'), /space/);
  refused(() => parseDns('nul\0.example'), /space/);
  refused(() => parseDns(''), /empty/);
  refused(() => parseDns(`${'a'.repeat(64)}.b`), /63/);
  refused(() => parseDns(Array(64).fill('abc').join('.')), /253/);
  refused(() => parseDns('*'), /wildcard/);
  refused(() => parseDns('*.lan'), /single label/);
  refused(() => parseDns('*.*.example.com'), /wildcard/);
  refused(() => parseDns('reg*.example.com'), /wildcard/);
  refused(() => parseDns('a.*.example.com'), /wildcard/);
});

test('either kind is told apart by its look', () => {
  assert.equal(parseName('10.0.0.1'), '10.0.0.1');
  assert.equal(parseName('FD00::1'), 'fd00::1');
  assert.equal(parseName('reg.lan'), 'reg.lan');
  refused(() => parseName('192.168.0.012'), /octal/);
  refused(() => parseName('fe80::1%eth0'), /zone id/);
});

test('the environment gives names separated by commas or spaces', () => {
  assert.deepEqual(parseNameList(' 10.0.0.1, reg.lan\n10.0.0.1  fd00::1,'), ['10.0.0.1', 'reg.lan', 'fd00::1']);
  assert.deepEqual(environmentNames({}), []);
  assert.deepEqual(environmentNames({ REGISTRY_SECURE_NAMES: 'reg.lan' }), ['reg.lan']);
  refused(() => environmentNames({ REGISTRY_SECURE_NAMES: 'reg.lan,10.0.0.1/8' }), /^REGISTRY_SECURE_NAMES: .*range/);
});

test('addresses survive the way to bytes and back', () => {
  assert.deepEqual([...ipBytes('192.168.0.12')], [192, 168, 0, 12]);
  for (const address of ['192.168.0.12', '::1', 'fd00::', 'fd00::12', '1:0:3:0:5:0:7:8', '2001:db8::ff:0:1'])
    assert.equal(ipFromBytes(ipBytes(address)), address);
  assert.equal(ipFromBytes(Buffer.alloc(5)), undefined);
});

test('image hosts have brackets around IPv6 and keep the port as written', () => {
  assert.equal(imageHost('192.168.0.12', 5000), '192.168.0.12:5000');
  assert.equal(imageHost('192.168.0.12', 443), '192.168.0.12');
  assert.equal(imageHost('fd00::1', 5000), '[fd00::1]:5000');
  assert.deepEqual(parseImageHost('reg.lan'), { host: 'reg.lan', imageHost: 'reg.lan' });
  assert.deepEqual(parseImageHost('reg.lan:443'), { host: 'reg.lan', imageHost: 'reg.lan:443' });
  assert.deepEqual(parseImageHost('fd00::1'), { host: 'fd00::1', imageHost: '[fd00::1]' });
  assert.deepEqual(parseImageHost('[FD00::1]:5000'), { host: 'fd00::1', imageHost: '[fd00::1]:5000' });
  refused(() => parseImageHost('reg.lan:0'), /port/);
  refused(() => parseImageHost('reg.lan:65536'), /port/);
  refused(() => parseImageHost('https://reg.lan'), /scheme/);
  refused(() => parseImageHost('reg.lan/team'), /path/);
  refused(() => parseImageHost('[reg.lan]:5000'), /IP address/);
  refused(() => parseImageHost("reg.lan'; rm -rf ~"), /not/);
});

test('a wildcard covers one label', () => {
  assert.ok(covers(['*.example.com'], 'reg.example.com'));
  assert.ok(!covers(['*.example.com'], 'a.reg.example.com'));
  assert.ok(!covers(['*.example.com'], 'example.com'));
  assert.ok(!covers(['*.0.0.1'], '10.0.0.1'));
});

test('private addresses are known', () => {
  for (const address of ['10.1.2.3', '172.31.0.1', '192.168.0.12', '100.64.0.1', '127.0.0.1', 'fd00::1', '::1'])
    assert.ok(isPrivateAddress(address), address);
  for (const address of ['172.32.0.1', '192.169.0.1', '8.8.8.8', '2001:db8::1', 'fe80::1'])
    assert.ok(!isPrivateAddress(address), address);
});
