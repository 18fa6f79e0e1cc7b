import assert from 'node:assert/strict';
import { collect } from '../../../src/store/collector.js';
import { callOf } from './calls.js';
import { push } from './manifests.js';
import type { Of, Operation } from './operations.js';
import type { Processes } from './processes.js';
import type { User } from './universe.js';
import type { Doubt, World } from './world.js';

const DAY = 24 * 3_600_000;

/** Does an operation, and compares what comes of it with the reference. */
export async function play(processes: Processes, world: World, operation: Operation): Promise<void> {
  switch (operation.do) {
    case 'push':
      for (const step of push(world, operation)) await play(processes, world, step);
      return;
    case 'readOnly':
      world.readOnly[operation.at] = operation.on;
      processes.setReadOnly(operation.at, operation.on);
      return;
    case 'restart':
      world.readOnly[operation.at] = false;
      return processes.restart(operation.at);
    case 'collect':
      await runCollector(processes, world, operation);
      break;
    default:
      await processes.meet(operation, callOf(world, operation));
  }
  for (let doubt = world.doubts.shift(); doubt; doubt = world.doubts.shift())
    world.settle(doubt, await isThere(processes, doubt));
}

async function runCollector(processes: Processes, world: World, operation: Of<'collect'>): Promise<void> {
  const { grace, untagged, uploads } = operation;
  const age = grace === 'none' ? 0 : DAY;
  if (age === 0) await processes.tick();
  const report = await collect(processes.driver(operation.at), {
    grace: age,
    untagged,
    ...(uploads && { uploads: { age } }),
  });
  assert.deepEqual(report.problems, []);
  world.collected(operation);
  if (grace === 'none') return;
  const counts = [report.tags, report.manifests, report.layers, report.blobs, report.uploads];
  assert.ok(
    counts.every(({ removed }) => removed === 0),
    'all of it is young',
  );
}

async function isThere(processes: Processes, doubt: Doubt): Promise<boolean> {
  const [path, by] = pathOf(doubt);
  const { status } = await processes.ask({ at: 0, by }, { method: 'GET', path });
  assert.ok([200, 204, 404].includes(status), `GET ${path} answers ${status}`);
  return status !== 404;
}

function pathOf(doubt: Doubt): [path: string, by: User] {
  switch (doubt.about) {
    case 'upload': {
      const { repository, uuid, owner } = doubt.upload;
      return [`/v2/${repository}/blobs/uploads/${uuid}`, owner];
    }
    case 'repository':
      return [`/v2/${doubt.repository}/tags/list`, 'insider'];
    default:
      return [`/v2/${doubt.repository}/${doubt.about}s/${doubt.digest}`, 'insider'];
  }
}
