import { userCommand } from '../auth/htpasswd.js';
import { readPem } from '../pki/inspect.js';
import { advertisedHost, thisMachine } from '../pki/machine.js';
import { environmentNames, imageHost } from '../pki/names.js';
import type { RunningServer } from '../server/serve.js';
import { FIRST_USER } from '../server/users.js';
import { renderTrust, trustInstructions } from '../trust/instructions.js';
import { quoted } from '../trust/shell.js';
import type { Order } from './order.js';

/** What the operator needs to know now, in the order in which it is needed. */
export async function story(server: RunningServer, order: Order): Promise<string> {
  const { pair, certificates, users, open, data } = server;
  const { dir, ip = [], dns = [], up } = order;
  const prefix = order.config.http.prefix.replace(/\/$/, '');
  // What the operator names is how clients reach it, whatever this machine's interfaces say.
  const [named] = [...ip, ...dns, ...environmentNames()];
  // Who listens on one address alone is reached by no other.
  const isEverywhere = /^[0.:]*$/.test(server.host);
  const reached = isEverywhere ? advertisedHost(pair?.names ?? [], thisMachine()) : server.host;
  const host = imageHost(named ?? reached, server.port);
  const lines = [`Registry      ${pair ? 'https' : 'http'}://${host}/`];
  if (pair) {
    const how = certificates?.server.action ?? 'yours';
    lines.push(
      `Certificate   ${pair.path} (${how}), until ${pair.notAfter.toISOString().slice(0, 10)}`,
      `  good for    ${pair.names.join(', ')}`,
    );
  }
  if (certificates?.authority)
    lines.push(
      `Authority     ${certificates.authority.certificate} (${certificates.authority.action}), until ${certificates.authority.notAfter.toISOString().slice(0, 10)}`,
    );
  if (certificates?.anchor) lines.push(`  SHA-256     ${certificates.anchor.fingerprint}`);
  lines.push(`Data          ${data}`);
  if (users) lines.push(`Users         ${users.file} (${users.action})`);
  if (users?.action === 'created') {
    if (users.password !== undefined)
      lines.push(`  user        ${users.name}`, `  password    ${users.password}   (shown only now)`);
    else if (users.passwordFile)
      lines.push(`  password    of ${users.name}: in ${users.passwordFile}; remove the file after use`);
    else lines.push(`  user        ${users.name}`);
  } else if (users && (up?.user !== undefined || up?.password !== undefined)) {
    const name = up.user ?? FIRST_USER;
    lines.push(
      `  user        ${name} was not added, since there are users: ${userCommand('add', name, users.file)}`,
      `              or, for another password: ${userCommand('passwd', name, users.file)}`,
    );
  }
  if (certificates?.anchor) {
    const clients = ['docker', 'docker-desktop-macos'];
    const instructions = trustInstructions({
      host,
      caFile: certificates.anchor.path,
      pem: (await readPem(certificates.anchor.path)).toString('latin1'),
      clients,
      prefix,
    });
    lines.push(
      '',
      `Once on each client (all kinds: https://${host}${prefix}/trust in a browser, or registry-secure trust${dir === process.cwd() ? '' : ` --dir ${quoted(dir)}`}):`,
      '',
      `# ${instructions.clients[0]!.title}, from any machine, in one line that checks what it fetches:`,
      instructions.clients[0]!.line,
      '',
      '# Or with the file at hand.',
      renderTrust(instructions).trimEnd(),
    );
  }
  const user = users?.action === 'created' ? users.name : (up?.user ?? 'NAME');
  lines.push('', 'Then:', '', open ? `docker push ${host}/NAME:TAG` : `docker login -u ${quoted(user)} ${host}`, '');
  return `${lines.join('\n')}\n`;
}
