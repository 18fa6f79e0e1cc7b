#!/usr/bin/env node
import './node-version.js';

import('../dist/src/cli/index.js').then(
  cli => cli.main(process.argv.slice(2)),
  error => {
    if (error.code !== 'ERR_MODULE_NOT_FOUND') throw error;
    console.error(`registry-secure: not built or not installed (${error.message}); run: npm run setup`);
    process.exit(1);
  },
);
