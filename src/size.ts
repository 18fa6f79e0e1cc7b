import { OperatorError } from './errors.js';

const UNITS: Readonly<Record<string, number>> = {
  b: 1,
  kb: 1e3,
  mb: 1e6,
  gb: 1e9,
  tb: 1e12,
  kib: 2 ** 10,
  mib: 2 ** 20,
  gib: 2 ** 30,
  tib: 2 ** 40,
};

const BINARY = ['TiB', 'GiB', 'MiB', 'KiB'] as const;

/** A number of bytes from `10GiB`, `1.5 TB`, `500MB` or a bare integer. @throws OperatorError */
export function parseSize(text: string): number {
  const match = /^(\d{1,16}(?:\.\d{1,6})?) ?([a-z]{0,3})$/i.exec(text.trim());
  const unit = UNITS[match?.[2]?.toLowerCase() || 'b'];
  const size = Math.round(Number(match?.[1]) * (unit ?? Number.NaN));
  if (Number.isSafeInteger(size)) return size;
  throw new OperatorError(`${JSON.stringify(text.slice(0, 64))} is not a size`, {
    fix: 'write a number with a unit (KiB, MiB, GiB, TiB, or KB, MB, GB, TB), such as 10GiB',
  });
}

/** The shortest text that `parseSize` reads back as the same number: `4MiB`, `1000`. */
export function formatSize(bytes: number): string {
  const unit = BINARY.find(unit => bytes > 0 && bytes % UNITS[unit.toLowerCase()]! === 0);
  return unit ? `${bytes / UNITS[unit.toLowerCase()]!}${unit}` : String(bytes);
}

/** For people, in about three digits: `9.8 GiB`, `512 B`. */
export function roughSize(bytes: number): string {
  const unit = BINARY.find(unit => bytes >= UNITS[unit.toLowerCase()]!);
  if (!unit) return `${bytes} B`;
  const value = bytes / UNITS[unit.toLowerCase()]!;
  return `${value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0)} ${unit}`;
}
