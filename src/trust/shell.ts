import { posix, win32 } from 'node:path';
import { inOwnFolder, type Step, type System } from './client.js';

/** How steps are written for the shell of a client: complete commands, to be pasted. */
export interface Shell {
  readonly quoted: (word: string) => string;
  /** `inline`: each command is one line. */
  readonly commands: (step: Step, inline: boolean) => string[];
  readonly undo: (step: Step) => string[];
  /** Puts the certificate at this position of a file, counted from 0, into a file of its own. */
  readonly part: (from: string, position: number, to: string) => string;
}

export function shellOf(system: System): Shell {
  return system === 'windows' ? POWERSHELL : system === 'linux' ? LINUX : UNIX;
}

/** One word for a POSIX shell. A leading variable is left for the shell to expand, between double quotes. */
export function quoted(word: string): string {
  const [, variable = '', rest = ''] = /^(\$HOME|\$\{[^}]+\})?(.*)$/s.exec(word) ?? [];
  const plain = /^[\w@%+=:,./-]+$/.test(rest) ? rest : `'${rest.replaceAll("'", `'\\''`)}'`;
  return variable === '' ? plain : `"${variable}"${plain}`;
}

/** What only one of the two kinds of POSIX systems can do, or can do in fewer words. */
interface Dialect {
  readonly copy: (sudo: string, from: string, to: string, mode: string) => string[];
  readonly removeFolder: (sudo: string, folder: string) => string;
  readonly removeBlock: (sudo: string, first: string, last: string, file: string) => string;
}

const LINUX = posixShell({
  copy: (sudo, from, to, mode) => [`${sudo}install -Dm${mode} ${from} ${quoted(to)}`],
  removeFolder: (sudo, folder) => `${sudo}rmdir --ignore-fail-on-non-empty ${folder}`,
  removeBlock: (sudo, first, last, file) => `${sudo}sed -i '/^${first}$/,/^${last}$/d' ${file}`,
});

/** Without what GNU has added, for macOS. */
const UNIX = posixShell({
  copy: (sudo, from, to, mode) => [
    `${sudo}mkdir -p ${quoted(posix.dirname(to))}`,
    `${sudo}install -m${mode} ${from} ${quoted(to)}`,
  ],
  removeFolder: (sudo, folder) => `${sudo}rmdir ${folder} 2>/dev/null || true`,
  removeBlock: (sudo, first, last, file) => `${sudo}sed -i.old '/^${first}$/,/^${last}$/d' ${file}`,
});

function posixShell({ copy, removeFolder, removeBlock }: Dialect): Shell {
  return {
    quoted,
    commands: (step, inline) => {
      const fed = inline ? piped : hereDocument;
      if ('run' in step) return [step.input === undefined ? step.run : fed(step.run, step.input)];
      const sudo = step.root ? 'sudo ' : '';
      const to = quoted(step.to);
      if ('copy' in step) return copy(sudo, step.from, step.to, step.copy === 'key' ? '600' : '644');
      if ('write' in step) return [fed(`${sudo}tee ${to} >/dev/null`, step.write)];
      const folder = `${sudo}mkdir -p ${quoted(posix.dirname(step.to))}`;
      if (step.as === 'toml') return [folder, fed(`${sudo}tee -a ${to} >/dev/null`, tomlBlock(step.host, step.add))];
      // Noclobber: what a file says already is not ours to replace.
      return [folder, fed(`${sudo}sh -Cc 'cat >"$0"' ${to}`, step.add)];
    },
    undo: step => {
      if ('run' in step) return step.undo === undefined ? [] : [step.undo];
      const sudo = step.root ? 'sudo ' : '';
      const to = quoted(step.to);
      if ('add' in step && step.as === 'toml') {
        const [first, last] = tomlMarks(step.host).map(mark => mark.replaceAll(/[[\].*/]/g, '\\$&'));
        return [removeBlock(sudo, first!, last!, to)];
      }
      // It asks: the file may have got more than this by now.
      if ('add' in step) return [`${sudo}rm -i ${to}`];
      // The folder goes as well: some clients stop at the first one they find, even when it is empty.
      const last = 'copy' in step && step.copy === 'ca' && inOwnFolder(step.to);
      return [`${sudo}rm -f ${to}`, ...(last ? [removeFolder(sudo, quoted(posix.dirname(step.to)))] : [])];
    },
    part: (from, position, to) => `awk '/BEGIN CERTIFICATE/{n++} n==${position + 1}' ${from} >${to}`,
  };
}

function hereDocument(command: string, text: string): string {
  return `${command} <<'EOF'\n${text}\nEOF`;
}

function piped(command: string, text: string): string {
  return `printf '%s\\n' ${text.split('\n').map(quoted).join(' ')} | ${command}`;
}

/** The comments between which our tables stand in a file of others. */
export function tomlMarks(host: string): [first: string, last: string] {
  return [`# registry-secure: ${host}`, `# registry-secure: end of ${host}`];
}

export function tomlBlock(host: string, text: string): string {
  const [first, last] = tomlMarks(host);
  return `${first}\n${text}\n${last}`;
}

/** On Windows all but copies are commands in themselves. */
const POWERSHELL: Shell = {
  quoted: windowsQuoted,
  commands: step => {
    if ('run' in step) return [step.run];
    if (!('copy' in step)) throw new TypeError('not for Windows');
    return [
      `New-Item -ItemType Directory -Force ${windowsQuoted(win32.dirname(step.to))} | Out-Null`,
      // Not Copy-Item, which takes brackets for a pattern.
      `Get-Content ${step.from} | Set-Content -LiteralPath ${windowsQuoted(step.to)}`,
    ];
  },
  undo: step => {
    if ('run' in step) return step.undo === undefined ? [] : [step.undo];
    return [
      `Remove-Item -LiteralPath ${windowsQuoted(step.to)}`,
      ...('copy' in step && step.copy === 'ca' && inOwnFolder(step.to)
        ? [`Remove-Item -LiteralPath ${windowsQuoted(win32.dirname(step.to))}`]
        : []),
    ];
  },
  part: (from, position, to) =>
    `[regex]::Matches((Get-Content -Raw ${from}), '(?s)-----BEGIN CERTIFICATE.+?END CERTIFICATE-----')[${position}].Value | Set-Content ${to}`,
};

/** One word for PowerShell. A leading variable is left to expand, between double quotes. */
function windowsQuoted(word: string): string {
  if (word.startsWith('$env:')) return `"${word}"`;
  return /^[\w.:\\/-]+$/.test(word) ? word : `'${word.replaceAll("'", "''")}'`;
}
