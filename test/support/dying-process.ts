import { promises } from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';

/**
 * Changes certificates in a process of its own, and is killed just before its Nth change of a file:
 *
 *     node dying-process.js N rotate|finish|renew|import|passphrase FOLDER [ARGUMENT]
 *
 * Exit code 0 means that there were fewer changes than that.
 */
const [, , count, what, dir, argument] = process.argv as string[];
let left = Number(count);

function countdown(): void {
  if (--left === 0) process.kill(process.pid, 'SIGKILL');
}

for (const name of ['rename', 'unlink', 'link'] as const) {
  const real = promises[name] as (...args: unknown[]) => Promise<void>;
  Object.assign(promises, {
    [name]: (...args: unknown[]) => {
      countdown();
      return real(...args);
    },
  });
}
const open = promises.open;
promises.open = async (path, flags, mode) => {
  if (flags !== undefined && flags !== 'r') countdown();
  const file = await open(path, flags, mode);
  const { writeFile } = file;
  file.writeFile = (...args) => {
    countdown();
    return writeFile.apply(file, args);
  };
  return file;
};
syncBuiltinESMExports();

switch (what) {
  case 'rotate': {
    const { rotateAuthority } = await import('../../src/pki/rotation.js');
    await rotateAuthority({ dir: dir!, names: ['reg.example.com'], overlap: 86_400_000 });
    break;
  }
  case 'finish': {
    const { finishRotation } = await import('../../src/pki/rotation.js');
    await finishRotation({ dir: dir! });
    break;
  }
  case 'renew': {
    const { renewNow } = await import('../../src/pki/renewal.js');
    await renewNow({ dir: dir!, names: [] });
    break;
  }
  case 'import': {
    const { importCertificate } = await import('../../src/pki/elsewhere.js');
    await importCertificate({ dir: dir!, files: [argument!] });
    break;
  }
  case 'passphrase': {
    const { changePassphrase } = await import('../../src/pki/passphrase.js');
    await changePassphrase(dir!, async () => undefined, 'correct horse');
    break;
  }
  default:
    throw new Error(`${what}?`);
}
