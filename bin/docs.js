// `npm run docs`: writes the pages, and the part of README.md, that are generated from the source.
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { root, setup } from './setup.js';

setup();
const { reference } = await import('../dist/src/config/reference.js');
const { apiPage } = await import('../dist/src/api/reference.js');
const { createProgram } = await import('../dist/src/cli/index.js');
const { clientsPage, troubleshootingPage, withCommandTable } = await import('../dist/src/cli/reference.js');
const readme = join(root, 'README.md');
writeFileSync(join(root, 'docs', 'configuration.md'), reference());
writeFileSync(join(root, 'docs', 'api.md'), apiPage());
writeFileSync(join(root, 'docs', 'clients.md'), clientsPage());
writeFileSync(join(root, 'docs', 'troubleshooting.md'), troubleshootingPage());
writeFileSync(readme, withCommandTable(readFileSync(readme, 'utf8'), await createProgram()));
