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
