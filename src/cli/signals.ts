/** What ends a command: Ctrl-C, and whoever stops it from outside. */
export const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/**
 * Does something before one of these signals ends the process as it would have done anyway.
 * @returns what takes it back
 */
export function beforeSignal(task: () => void): () => void {
  const listeners = SIGNALS.map(signal => {
    const listener = () => {
      task();
      process.kill(process.pid, signal);
    };
    process.once(signal, listener);
    return () => process.off(signal, listener);
  });
  return () => {
    for (const remove of listeners) remove();
  };
}

/** Started by npm, a process hears each Ctrl-C twice within this time (ms): from the terminal, and from npm. */
const ECHO = 1_000;

/**
 * For a process that serves: resolves at SIGTERM or Ctrl-C. A second one, unless it is the echo of the first, ends the
 * process at once. To be called at the start: who sees the port open may already want it closed.
 */
export function untilSignal(): Promise<void> {
  return new Promise<void>(resolve => {
    let first: number | undefined;
    const heard = () => {
      first ??= performance.now();
      if (performance.now() - first > ECHO) process.exit(1);
      resolve();
    };
    for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, heard);
  });
}
