// `npm run docs`: writes the reference that is generated from the source.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { root, setup } from './setup.js';

setup();
const { reference } = await import('../dist/src/config/reference.js');
writeFileSync(join(root, 'docs', 'configuration.md'), reference());
