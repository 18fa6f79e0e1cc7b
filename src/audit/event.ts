/** One thing that happened, as the audit log tells of it. Nothing secret may be given to it. */
export interface AuditEvent {
  /** In lower case, with the part of the registry first: `login`, `push`, `certificate.renew`. */
  readonly type: string;
  readonly outcome: 'done' | 'refused' | 'failed';
  /** The user, of the registry or, for commands, of the system. Undefined for nobody, and for the registry itself. */
  readonly who?: string | undefined;
  readonly realm?: string | undefined;
  /** How `who` is known: `password`, `token`, `certificate`, …; `command` for the command line. */
  readonly via?: string | undefined;
  /** The client's address. */
  readonly from?: string | undefined;
  /** What it was done to, and more of it. */
  readonly what?: Readonly<Record<string, Detail | undefined>> | undefined;
  /** As the access log and the client have it. */
  readonly request?: string | undefined;
}

type Detail = string | number | boolean | readonly string[];

/** Text of others is cut to this (UTF-16 units), and lists to as many entries: a line stays far below `LONGEST_LINE`. */
const LONGEST_TEXT = 512;
const LONGEST_LIST = 100;

/** The fields of an event as they stand in a line, in their order, without braces: printable ASCII, whatever they hold. */
export function fieldsOf({ type, outcome, who, realm, via, from, what, request }: AuditEvent): string {
  const details = what && Object.fromEntries(Object.entries(what).map(([name, value]) => [name, bounded(value)]));
  const fields = { type, outcome, who: bounded(who), realm: bounded(realm), via, from, what: details, request };
  return ascii(JSON.stringify(fields)).slice(1, -1);
}

/** JSON that no terminal and no reader of lines can take for more than one line of text. */
export function ascii(json: string): string {
  return json.replace(/[^\x20-\x7e]/g, unit => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`);
}

function bounded<T extends Detail | undefined>(value: T): T;
function bounded(value: Detail | undefined): Detail | undefined {
  if (typeof value === 'string') return value.length > LONGEST_TEXT ? `${value.slice(0, LONGEST_TEXT)}…` : value;
  if (typeof value !== 'object') return value;
  return value.length > LONGEST_LIST
    ? [...value.slice(0, LONGEST_LIST).map(one => bounded(one)), `… ${value.length - LONGEST_LIST} more`]
    : value.map(one => bounded(one));
}
