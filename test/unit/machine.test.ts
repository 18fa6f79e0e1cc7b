import assert from 'node:assert/strict';
import { isIP } from 'node:net';
import type { NetworkInterfaceInfo } from 'node:os';
import { test } from 'node:test';
import { advertisedHost, type Machine, namesHint, thisMachine, usableAddresses } from '../../src/pki/machine.js';

function interfaces(addresses: Record<string, readonly string[]>): NodeJS.Dict<NetworkInterfaceInfo[]> {
  return Object.fromEntries(
    Object.entries(addresses).map(([name, list]) => [
      name,
      list.map(address => {
        const internal = name === 'lo';
        const common = { address, netmask: '', mac: '00:00:00:00:00:00', internal, cidr: null };
        return isIP(address) === 4
          ? { ...common, family: 'IPv4' as const }
          : { ...common, family: 'IPv6' as const, scopeid: 0 };
      }),
    ]),
  );
}

test('the addresses that others could use, and no other', () => {
  const machine = interfaces({
    lo: ['127.0.0.1', '::1'],
    wg0: ['10.99.0.2'],
    eth0: ['192.168.0.12', 'fd00::12', 'fd00::abcd', 'fe80::1', '169.254.3.4'],
    docker0: ['172.17.0.1'],
    'br-0123456789ab': ['172.18.0.1'],
    veth1234: ['10.5.0.1'],
    cni0: ['10.42.0.1'],
    'vEthernet (WSL)': ['172.20.0.1'],
    br0: ['192.168.1.12'],
  });
  assert.deepEqual(usableAddresses(machine, new Set(['fd00::abcd'])), [
    '192.168.0.12',
    '192.168.1.12',
    'fd00::12',
    '10.99.0.2',
  ]);
  // Where temporary addresses cannot be told apart, no IPv6 address is taken.
  assert.deepEqual(usableAddresses(machine, undefined), ['192.168.0.12', '192.168.1.12', '10.99.0.2']);
});

test('this machine always has its loopback names, last', () => {
  assert.deepEqual(thisMachine().names.slice(-3), ['localhost', '127.0.0.1', '::1']);
});

test('the host to advertise is the first name that others can use', () => {
  const machine: Machine = { container: false, names: ['192.168.0.12', 'box', 'localhost', '127.0.0.1', '::1'] };
  const of = (...names: string[]) => advertisedHost(names, machine);
  assert.equal(of('localhost', '127.0.0.1', '*.example.com', '192.168.0.12', 'reg.example.com'), '192.168.0.12');
  assert.equal(of('reg.example.com', '192.168.0.12'), 'reg.example.com');
  assert.equal(of('203.0.113.9', '192.168.0.12'), '203.0.113.9', 'a public address may be forwarded to us');
  assert.equal(of('192.168.0.99', '192.168.0.12'), '192.168.0.12', 'an address that the machine lost');
  assert.equal(of('192.168.0.99', 'reg.example.com'), '192.168.0.99', 'a name is no address that it has');
  assert.equal(
    advertisedHost(['192.168.0.99', 'fd00::12'], { ...machine, names: ['fd00::12', ...machine.names] }),
    '192.168.0.99',
    'who is known by IPv4 is not told to use IPv6, which image references of older clients cannot hold',
  );
  assert.equal(of('192.168.0.99', 'localhost'), '192.168.0.99', 'still better than localhost');
  assert.equal(of('box', '192.168.0.12'), '192.168.0.12', 'a bare host name is known to few');
  assert.equal(of('box', 'localhost'), 'box');
  assert.equal(of('::1', 'localhost'), 'localhost');
  assert.equal(advertisedHost(['192.168.0.99', '10.0.0.1'], { ...machine, container: true }), '192.168.0.99');
});

test('a certificate for this machine alone leads to the options that give names', () => {
  const container: Machine = { container: true, names: ['localhost', '127.0.0.1', '::1'] };
  assert.match(namesHint(['localhost', '127.0.0.1'], container) ?? '', /container.*--ip.*REGISTRY_SECURE_NAMES/);
  assert.equal(namesHint(['localhost', '10.0.0.1'], container), undefined);
});
