import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Namespace } from './namespace.js';
import { type Daemon, requireTools } from './process.js';
import { program } from './registry.js';

const SUFFIX = 'dc=example,dc=com';
export const PEOPLE = `ou=people,${SUFFIX}`;
export const GROUPS = `ou=groups,${SUFFIX}`;
/** May read users and groups. */
export const READER = { name: `cn=reader,${SUFFIX}`, password: 'only reads' };
const ROOT = { name: `cn=root,${SUFFIX}`, password: 'writes too' };

/** OpenLDAP's server inside a namespace, with a certificate of an authority of its own. It takes no password without TLS. */
export class Slapd {
  readonly plain: string;
  readonly secure: string;
  readonly authority: string;
  #daemon: Daemon | undefined;

  private constructor(
    private readonly namespace: Namespace,
    private readonly dir: string,
  ) {
    this.plain = `ldap://${namespace.ip}:3389`;
    this.secure = `ldaps://${namespace.ip}:3636`;
    this.authority = join(dir, 'certs', 'ca.crt');
  }

  /** @param entries LDIF below the suffix */
  static async start(namespace: Namespace, entries: string): Promise<Slapd> {
    requireTools('slapd', 'ldapmodify');
    const dir = join(namespace.dir, 'slapd');
    mkdirSync(join(dir, 'data'), { recursive: true });
    await namespace.must(program('init-certs', '--dir', dir, '--ip', namespace.ip));
    const slapd = new Slapd(namespace, dir);
    const schemas = ['core', 'cosine', 'inetorgperson', 'nis'].map(name => `include /etc/ldap/schema/${name}.schema`);
    writeFileSync(
      join(dir, 'slapd.conf'),
      `${schemas.join('\n')}
modulepath /usr/lib/ldap
moduleload back_mdb
moduleload memberof
pidfile ${dir}/pid
TLSCACertificateFile ${slapd.authority}
TLSCertificateFile ${dir}/certs/domain.crt
TLSCertificateKeyFile ${dir}/certs/domain.key
TLSProtocolMin 3.3
security simple_bind=128
database mdb
suffix "${SUFFIX}"
rootdn "${ROOT.name}"
rootpw "${ROOT.password}"
directory ${dir}/data
overlay memberof
access to attrs=userPassword by self write by anonymous auth by * none
access to * by users read by * none
`,
    );
    chmodSync(join(dir, 'slapd.conf'), 0o600);
    writeFileSync(
      join(dir, 'init.ldif'),
      `dn: ${SUFFIX}
objectClass: dcObject
objectClass: organization
dc: example
o: Example

dn: ${PEOPLE}
objectClass: organizationalUnit
ou: people

dn: ${GROUPS}
objectClass: organizationalUnit
ou: groups

dn: ${READER.name}
objectClass: organizationalRole
objectClass: simpleSecurityObject
cn: reader
userPassword: ${READER.password}
`,
    );
    await namespace.must(['slapadd', '-f', join(dir, 'slapd.conf'), '-l', join(dir, 'init.ldif')]);
    await slapd.run();
    await slapd.change(entries);
    return slapd;
  }

  /** Starts the server; again, after `stop`. */
  async run(): Promise<void> {
    const argv = ['slapd', '-d', '0', '-f', join(this.dir, 'slapd.conf'), '-h', `${this.plain} ${this.secure}`];
    this.#daemon = this.namespace.start('slapd', argv);
    const ask = this.#client('ldapsearch', '-b', SUFFIX, '-s', 'base');
    await this.#daemon.ready(async () => (await this.namespace.run(ask, { env: this.#env })).status === 0);
  }

  async stop(): Promise<void> {
    await this.#daemon?.stop();
  }

  /** SIGSTOP: it takes connections, and says nothing. */
  signal(signal: 'SIGSTOP' | 'SIGCONT'): void {
    this.#daemon?.kill(signal);
  }

  /** Applies LDIF, in which an entry without a changetype is added. */
  async change(ldif: string): Promise<void> {
    await this.namespace.must(this.#client('ldapmodify', '-a'), { env: this.#env, input: ldif });
  }

  get #env(): Record<string, string> {
    return { LDAPTLS_CACERT: this.authority };
  }

  #client(tool: string, ...args: string[]): string[] {
    return [tool, '-x', '-H', this.secure, '-D', ROOT.name, '-w', ROOT.password, ...args];
  }
}

/** LDIF of a user whose password is `secret of NAME`. */
export function person(name: string): string {
  return `dn: uid=${name},${PEOPLE}
objectClass: inetOrgPerson
uid: ${name}
cn: ${name}
sn: ${name}
userPassword: secret of ${name}

`;
}

/** LDIF of a group. */
export function group(name: string, ...members: string[]): string {
  return `dn: cn=${name},${GROUPS}
objectClass: groupOfNames
cn: ${name}
${members.map(member => `member: uid=${member},${PEOPLE}`).join('\n')}

`;
}
