/** The texts of LDAP: values within filters and names of entries. Pure functions. */

/** A value as a filter holds it (RFC 4515 section 3): nothing of it can be taken for a part of the filter. */
export function filterValue(value: string): string {
  return value.replaceAll(/[\\*()\0]/g, character => `\\${hex(character)}`);
}

/** A value as a distinguished name holds it (RFC 4514 section 2.4). */
export function nameValue(value: string): string {
  return value
    .replaceAll(/[\\",+<>;=]/g, '\\$&')
    .replaceAll(/[\0-\x1f\x7f]/g, character => `\\${hex(character)}`)
    .replace(/(?<=.) $/su, '\\ ')
    .replace(/^[ #]/, '\\$&');
}

const hex = (character: string): string => character.charCodeAt(0).toString(16).padStart(2, '0');

/** Puts values in the place of `{user}` and `{dn}`, each once: what a value brings with it is no placeholder. */
export function fill(
  template: string,
  values: Readonly<Record<string, string>>,
  escaped: (value: string) => string,
): string {
  return template.replaceAll(/\{(\w+)\}/g, (found, name: string) => {
    const value = Object.hasOwn(values, name) ? values[name] : undefined;
    return value === undefined ? found : escaped(value);
  });
}

interface Part {
  /** In lower case. */
  readonly type: string;
  readonly value: string;
}

/** A distinguished name, from the entry up to the root; undefined for what is none, or has a part of several values. */
export function parseName(name: string): Part[] | undefined {
  const parts: Part[] = [];
  // A part ends at a comma that no backslash stands before.
  for (const text of name.match(/(?:\\.|[^\\,])+/gsu) ?? []) {
    const [, type, value] = /^ *([\w.-]+) *= *((?:\\.|[^\\+])*?) *$/su.exec(text) ?? [];
    if (type === undefined || value === undefined) return undefined;
    parts.push({ type: type.toLowerCase(), value: unescaped(value) });
  }
  return parts;
}

function unescaped(value: string): string {
  const bytes = value.match(/(?:\\[0-9a-f]{2})+|\\.|[^\\]+/gisu) ?? [];
  return bytes
    .map(part => {
      if (/^(?:\\[0-9a-f]{2})+$/i.test(part)) return Buffer.from(part.replaceAll('\\', ''), 'hex').toString();
      return part.startsWith('\\') ? part.slice(1) : part;
    })
    .join('');
}

/** Whether an entry lies below another one. Values are compared without regard to case, as directories do. */
export function isBelow(name: readonly Part[], base: readonly Part[]): boolean {
  const tail = name.slice(-base.length);
  return (
    name.length > base.length &&
    base.every(
      ({ type, value }, at) => tail[at]!.type === type && tail[at]!.value.toLowerCase() === value.toLowerCase(),
    )
  );
}
