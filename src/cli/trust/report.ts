import type { ClientReport } from '../../trust/install.js';

interface Showing {
  readonly host: string;
  readonly dryRun: boolean;
  readonly json: boolean;
  /** Lines that come first in the text. */
  readonly head: readonly string[];
  /** What only the JSON has. */
  readonly more: Readonly<Record<string, unknown>>;
}

/** What was done for each client, as text or JSON. The exit code is 1 where one of them is not done. */
export function showReports(reports: readonly ClientReport[], { host, dryRun, json, head, more }: Showing): void {
  if (reports.some(({ problem }) => problem !== undefined)) process.exitCode = 1;
  if (json) {
    process.stdout.write(`${JSON.stringify({ host, dryRun, ...more, clients: reports }, null, 2)}\n`);
    return;
  }
  const would = dryRun ? 'would be ' : '';
  const lines = reports.flatMap(({ client, title, changes, commands, restart, problem }) => [
    '',
    `${title} (${client})`,
    ...changes.map(({ path, action, why }) => {
      const done = ['unchanged', 'kept'].includes(action) ? action : `${would}${action}`;
      return `  ${path}: ${done}${why === undefined ? '' : `, ${why}`}`;
    }),
    ...commands.map(({ command, ran }) => `  ${ran ? 'ran' : dryRun ? 'would run' : 'to be run there'}: ${command}`),
    ...(restart === undefined ? [] : [`  ${restart}`]),
    ...(problem === undefined ? [] : [`  not done: ${problem}`]),
  ]);
  process.stdout.write(`${[...head, ...lines].join('\n')}\n`.replace(/^\n/, ''));
}
