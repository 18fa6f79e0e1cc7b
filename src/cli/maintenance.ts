import { type Command, InvalidArgumentError } from 'commander';
import { beginMaintenance, endMaintenance, readMaintenance } from '../store/maintenance.js';
import { addVolumeOptions, volumeConfig, withVolume } from './volume.js';

interface Options {
  readonly reason?: string;
  readonly json?: true;
}

/** `registry-secure maintenance on|off|status`: makes every process that serves the data read-only, or says whether it is. */
export function maintenance(program: Command): void {
  const parent = program
    .command('maintenance')
    .description('make the registry read-only for a while: pulls go on, pushes and deletes are answered with 405');
  const on = addVolumeOptions(
    parent.command('on').description('begin to be read-only; every serving process obeys within a second'),
  )
    .option('--reason <text>', 'what the clients that are refused are told', parseReason)
    .action(async (file: string | undefined) => {
      const { reason } = on.opts<Options>();
      const { since } = await withVolume(volumeConfig(on, file), { readOnly: false }, driver =>
        beginMaintenance(driver, reason),
      );
      process.stdout.write(`read-only since ${since}; end it by: registry-secure maintenance off\n`);
    });
  const off = addVolumeOptions(parent.command('off').description('serve pushes and deletes again')).action(
    async (file: string | undefined) => {
      const ended = await withVolume(volumeConfig(off, file), { readOnly: false }, endMaintenance);
      process.stdout.write(ended ? 'pushes and deletes are served again\n' : 'there was no maintenance\n');
    },
  );
  const status = addVolumeOptions(
    parent.command('status').description('say whether the registry is read-only by maintenance, and since when'),
  )
    .option('--json', 'print JSON')
    .action(async (file: string | undefined) => {
      const current = await withVolume(volumeConfig(status, file), { readOnly: true }, readMaintenance);
      if (status.opts<Options>().json)
        process.stdout.write(`${JSON.stringify({ maintenance: current !== undefined, ...current })}\n`);
      else if (current)
        process.stdout.write(`read-only since ${current.since}${current.reason ? `: ${current.reason}` : ''}\n`);
      else process.stdout.write('everything is served\n');
    });
}

function parseReason(text: string): string {
  if (text.length <= 200 && !/[\0-\x1f\x7f]/.test(text)) return text;
  throw new InvalidArgumentError('expected one line of at most 200 characters');
}
