import fs from 'node:fs/promises';
import { syncBuiltinESMExports } from 'node:module';

/*
 * Loaded before the program (`node --import`): to it its volume then lies on a file system of another machine. So the thread
 * that works on the disk makes all calls, and they can be counted.
 */
const NFS = 0x6969;

const { statfs } = fs;
fs.statfs = (async (path: string) => ({ ...(await statfs(path)), type: NFS })) as typeof statfs;
syncBuiltinESMExports();
