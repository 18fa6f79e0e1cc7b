import { cpSync, symlinkSync } from 'node:fs';
import { join, relative, sep } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The checkout that the tests run from. */
export const CHECKOUT = fileURLToPath(new URL('../../..', import.meta.url));

const LEFT_OUT = new Set(['.git', 'node_modules', 'dist', 'data']);

/** Copies what a fresh clone holds, without git: nothing installed, nothing built, no certificates, no users. */
export function copyCheckout(to: string, { linkModules = false } = {}): void {
  cpSync(CHECKOUT, to, {
    recursive: true,
    filter: path => {
      const [top = '', below] = relative(CHECKOUT, path).split(sep);
      if (top === 'certs' || top === 'auth') return below === undefined || below === 'README.md';
      return !LEFT_OUT.has(top) && !top.endsWith('.tgz');
    },
  });
  if (linkModules) symlinkSync(join(CHECKOUT, 'node_modules'), join(to, 'node_modules'), 'junction');
}

/**
 * The environment of npm in a test: the caller's, for its proxy, its registry and its cache, without what an outer npm
 * and the test runner have put into it.
 */
export function npmEnvironment(more: NodeJS.ProcessEnv = {}): NodeJS.ProcessEnv {
  const outer = /^(npm_(command|execpath|lifecycle|node_execpath|package)|INIT_CWD|NODE_TEST_CONTEXT|REGISTRY_)/;
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !outer.test(name)));
  return { ...env, npm_config_prefer_offline: 'true', ...more };
}
