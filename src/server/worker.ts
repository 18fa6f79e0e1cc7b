import cluster from 'node:cluster';
import { NOBODY, type Others } from '../others.js';

const { isWorker } = cluster;

/** What a process that serves together with others is told as it starts. */
export interface Charge {
  /** From 1. The first one also does what only one should: cleaning up, renewing certificates. */
  readonly number: number;
  /** It comes in the place of one that has ended. */
  readonly replaces: boolean;
}

/** To the primary: this process hears what it is told. */
export const HERE = 'here';

/** To the primary: this process serves. */
export interface Ready {
  /** Whether it has read what it could not read again, since it is root no longer. */
  readonly readAsRoot: boolean;
}

/** To all other workers, by way of the primary. */
export interface Word {
  readonly topic: string;
  readonly value: unknown;
}

/** Whether this process serves for others to come, which then have nothing to say that it has not said. */
export function isFirstToServe(charge: Charge | undefined): boolean {
  return charge === undefined || (charge.number === 1 && !charge.replaces);
}

export function isWord(message: unknown): message is Word {
  return typeof message === 'object' && message !== null && 'topic' in message && 'value' in message;
}

/** What this process is told by the one that has started it, and what it is to serve. */
export async function chargeOfWorker<Order>(): Promise<Charge & { readonly order: Order }> {
  return new Promise(resolve => {
    const hear = (message: unknown) => {
      if (typeof message !== 'object' || message === null || !('order' in message)) return;
      process.off('message', hear);
      resolve(message as Charge & { readonly order: Order });
    };
    process.on('message', hear);
    process.send!(HERE);
  });
}

export function isReady(message: unknown): message is Ready {
  return typeof message === 'object' && message !== null && 'readAsRoot' in message;
}

export function sayReady({ readAsRoot }: Ready): void {
  if (isWorker) process.send!({ readAsRoot } satisfies Ready);
}

/** The other workers, by way of the primary: nobody where this process serves alone. */
export const OTHERS: Others = isWorker
  ? {
      tell(topic, value) {
        if (process.connected) process.send!({ topic, value } satisfies Word, undefined, undefined, () => {});
      },
      hear(topic, heard) {
        process.on('message', message => {
          if (isWord(message) && message.topic === topic) heard(message.value);
        });
      },
    }
  : NOBODY;

/** The other processes keep this one no longer from ending. */
export function leave(): void {
  process.channel?.unref();
}
