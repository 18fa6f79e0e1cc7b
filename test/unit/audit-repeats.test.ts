import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { AuditEvent } from '../../src/audit/event.js';
import { Repeats } from '../../src/audit/repeats.js';

describe('refusals in the audit log', () => {
  test('of however many networks, they have no more lines a minute than they may, and all are counted', context => {
    context.mock.timers.enable({ apis: ['setTimeout'] });
    const told: AuditEvent[] = [];
    const repeats = new Repeats(event => told.push(event));
    const refuse = (networks: number) => {
      for (let network = 0; network < networks; network++) {
        const event = { type: 'refusal', outcome: 'refused', what: { reason: 'wrong', status: 401 } } as const;
        repeats.refusal(`2001:db8:0:${network.toString(16)}`, '401 wrong', event, false);
      }
    };
    const counted = () => told.reduce((sum, { what }) => sum + Number(what?.more ?? 1), 0);

    refuse(45_000);
    context.mock.timers.tick(60_000);
    assert.equal(counted(), 45_000);
    assert.ok(told.length < 6_010, `${told.length} lines`);

    told.length = 0;
    refuse(100);
    assert.equal(told.length, 100, 'the next minute begins anew');
  });
});
