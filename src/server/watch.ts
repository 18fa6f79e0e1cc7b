import { type BigIntStats, statSync } from 'node:fs';
import { stat } from 'node:fs/promises';
import { systemCode } from '../errors.js';
import type { Log } from './log.js';

export interface WatchOptions {
  /** What the files are, for the log: `certificate`, `htpasswd`. */
  readonly what: string;
  readonly log: Log;
  /** Time between two looks (ms), default 500. */
  readonly interval?: number;
}

export interface Watch {
  close(): void;
}

/** Calls `reload` from then on whenever one of the files has changed. */
export type WatchFiles = (files: readonly string[], what: string, reload: () => Promise<void>) => void;

/** A change is believed when two looks this far apart (ms) see the same: not while the file is being written. */
const SETTLE = 100;
/** A reload that fails is tried again at the next look, then ever less often, down to this (ms). */
const LONGEST_RETRY = 30_000;

/**
 * Calls `reload` when one of the files has changed: was written, replaced, reached by another link, removed, came back.
 * It looks by stat, for inotify hears nothing on NFS and many bind mounts, and follows links, for Kubernetes swaps them.
 *
 * Where `reload` throws, what was loaded before must stay in force. It is then called again until it succeeds, for the
 * files of a pair are replaced one after the other; a failure is logged when it has outlived a look.
 *
 * The files are taken as known as they are at the call: watch first, then load, and no change falls in between.
 */
export function watchFiles(paths: readonly string[], reload: () => Promise<void>, options: WatchOptions): Watch {
  const { what, log, interval = 500 } = options;
  let loaded = fingerprint(paths.map(statNow));
  let seen = loaded;
  let tried = loaded;
  let failures = 0;
  let notBefore = 0;
  let timer: NodeJS.Timeout | undefined;
  let closed = false;

  /** One look; how long until the next (ms). */
  async function step(): Promise<number> {
    const now = fingerprint(await Promise.all(paths.map(path => stat(path, { bigint: true }).catch(systemCode))));
    if (now !== seen) {
      seen = now;
      return SETTLE;
    }
    if (seen === loaded || (seen === tried && performance.now() < notBefore) || closed) return interval;
    if (seen !== tried) failures = 0;
    tried = seen;
    try {
      await reload();
      loaded = tried;
      log.info(`reloaded the ${what}`);
    } catch (error) {
      failures++;
      if (failures === 2) log.error(`kept the old ${what}`, { error });
      notBefore = performance.now() + (failures === 1 ? 0 : Math.min(interval * 2 ** failures, LONGEST_RETRY));
    }
    return interval;
  }

  function wait(time: number): void {
    if (!closed) timer = setTimeout(() => step().then(wait), time).unref();
  }

  wait(interval);
  return {
    close() {
      closed = true;
      clearTimeout(timer);
    },
  };
}

function statNow(path: string): BigIntStats | string | undefined {
  try {
    return statSync(path, { bigint: true });
  } catch (error) {
    return systemCode(error);
  }
}

/** What changes whenever a file does: its identity, size and times, or why it cannot be seen. */
function fingerprint(stats: ReadonlyArray<BigIntStats | string | undefined>): string {
  return stats
    .map(stat =>
      typeof stat === 'object' ? [stat.dev, stat.ino, stat.size, stat.mtimeNs, stat.ctimeNs].join(':') : stat,
    )
    .join();
}
