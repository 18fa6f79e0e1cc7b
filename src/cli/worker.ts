import { chargeOfWorker } from '../server/worker.js';
import { carryOut, type Order } from './order.js';
import { report, toleratePipes } from './report.js';
import { untilSignal } from './signals.js';

// The program of a process that serves together with others (`serveUntilStopped`). It reads no command line and no
// configuration: all of them serve what the first process has read, also when a file was changed before one is replaced.
toleratePipes();
const stop = untilSignal();
try {
  const charge = await chargeOfWorker<Order>();
  await carryOut(charge.order, charge, stop);
} catch (error) {
  process.exitCode = report(error);
}
