/**
 * The password hash of old Unix, crypt(3): DES (FIPS 46-3) over a block of zeros, 25 times, with the first eight characters
 * of the password as the key and the salt exchanging bits of the expansion. OpenSSL has none that takes a salt. Bits are
 * kept one a byte: clear, and quick enough for what nobody should use.
 */

// biome-ignore format: tables of the standard
const INITIAL = [58,50,42,34,26,18,10,2,60,52,44,36,28,20,12,4,62,54,46,38,30,22,14,6,64,56,48,40,32,24,16,8,57,49,41,33,25,17,9,1,59,51,43,35,27,19,11,3,61,53,45,37,29,21,13,5,63,55,47,39,31,23,15,7];
// biome-ignore format: tables of the standard
const FINAL = [40,8,48,16,56,24,64,32,39,7,47,15,55,23,63,31,38,6,46,14,54,22,62,30,37,5,45,13,53,21,61,29,36,4,44,12,52,20,60,28,35,3,43,11,51,19,59,27,34,2,42,10,50,18,58,26,33,1,41,9,49,17,57,25];
// biome-ignore format: tables of the standard
const EXPANSION = [32,1,2,3,4,5,4,5,6,7,8,9,8,9,10,11,12,13,12,13,14,15,16,17,16,17,18,19,20,21,20,21,22,23,24,25,24,25,26,27,28,29,28,29,30,31,32,1];
// biome-ignore format: tables of the standard
const PERMUTATION = [16,7,20,21,29,12,28,17,1,15,23,26,5,18,31,10,2,8,24,14,32,27,3,9,19,13,30,6,22,11,4,25];
// biome-ignore format: tables of the standard
const CHOICE_1 = [57,49,41,33,25,17,9,1,58,50,42,34,26,18,10,2,59,51,43,35,27,19,11,3,60,52,44,36,63,55,47,39,31,23,15,7,62,54,46,38,30,22,14,6,61,53,45,37,29,21,13,5,28,20,12,4];
// biome-ignore format: tables of the standard
const CHOICE_2 = [14,17,11,24,1,5,3,28,15,6,21,10,23,19,12,4,26,8,16,7,27,20,13,2,41,52,31,37,47,55,30,40,51,45,33,48,44,49,39,56,34,53,46,42,50,36,29,32];
const SHIFTS = [1, 1, 2, 2, 2, 2, 2, 2, 1, 2, 2, 2, 2, 2, 2, 1];
// biome-ignore format: tables of the standard
const BOXES = [
  [14,4,13,1,2,15,11,8,3,10,6,12,5,9,0,7,0,15,7,4,14,2,13,1,10,6,12,11,9,5,3,8,4,1,14,8,13,6,2,11,15,12,9,7,3,10,5,0,15,12,8,2,4,9,1,7,5,11,3,14,10,0,6,13],
  [15,1,8,14,6,11,3,4,9,7,2,13,12,0,5,10,3,13,4,7,15,2,8,14,12,0,1,10,6,9,11,5,0,14,7,11,10,4,13,1,5,8,12,6,9,3,2,15,13,8,10,1,3,15,4,2,11,6,7,12,0,5,14,9],
  [10,0,9,14,6,3,15,5,1,13,12,7,11,4,2,8,13,7,0,9,3,4,6,10,2,8,5,14,12,11,15,1,13,6,4,9,8,15,3,0,11,1,2,12,5,10,14,7,1,10,13,0,6,9,8,7,4,15,14,3,11,5,2,12],
  [7,13,14,3,0,6,9,10,1,2,8,5,11,12,4,15,13,8,11,5,6,15,0,3,4,7,2,12,1,10,14,9,10,6,9,0,12,11,7,13,15,1,3,14,5,2,8,4,3,15,0,6,10,1,13,8,9,4,5,11,12,7,2,14],
  [2,12,4,1,7,10,11,6,8,5,3,15,13,0,14,9,14,11,2,12,4,7,13,1,5,0,15,10,3,9,8,6,4,2,1,11,10,13,7,8,15,9,12,5,6,3,0,14,11,8,12,7,1,14,2,13,6,15,0,9,10,4,5,3],
  [12,1,10,15,9,2,6,8,0,13,3,4,14,7,5,11,10,15,4,2,7,12,9,5,6,1,13,14,0,11,3,8,9,14,15,5,2,8,12,3,7,0,4,10,1,13,11,6,4,3,2,12,9,5,15,10,11,14,1,7,6,0,8,13],
  [4,11,2,14,15,0,8,13,3,12,9,7,5,10,6,1,13,0,11,7,4,9,1,10,14,3,5,12,2,15,8,6,1,4,11,13,12,3,7,14,10,15,6,8,0,5,9,2,6,11,13,8,1,4,10,7,9,5,0,15,14,2,3,12],
  [13,2,8,4,6,15,11,1,10,9,3,14,5,0,12,7,1,15,13,8,10,3,7,4,12,5,6,11,0,14,9,2,7,11,4,1,9,12,14,2,0,6,10,13,15,3,5,8,2,1,14,7,4,10,8,13,15,12,9,0,3,5,6,11],
];
const ALPHABET = './0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';

/** @param salt two characters of `./0-9A-Za-z` @returns the salt and eleven characters */
export function desCrypt(password: Buffer, salt: string): string {
  const keys = roundKeys(bitsOf(password));
  const expansion = salted(salt);
  let block: Uint8Array = new Uint8Array(64);
  for (let time = 0; time < 25; time++) block = encrypt(block, keys, expansion);
  const padded = [...block, 0, 0];
  let text = salt;
  for (let at = 0; at < 66; at += 6) text += ALPHABET[padded.slice(at, at + 6).reduce((sum, bit) => sum * 2 + bit, 0)];
  return text;
}

/** Seven bits of each of the first eight characters; the eighth, of parity, is none of the key's. */
function bitsOf(password: Buffer): Uint8Array {
  return Uint8Array.from(
    { length: 64 },
    (_, at) => ((password[at >> 3] ?? 0) >> (6 - (at & 7))) & (at % 8 === 7 ? 0 : 1),
  );
}

const permuted = (bits: ArrayLike<number>, table: readonly number[]): Uint8Array =>
  Uint8Array.from(table, place => bits[place - 1]!);

function roundKeys(key: Uint8Array): Uint8Array[] {
  let halves = permuted(key, CHOICE_1);
  return SHIFTS.map(shift => {
    const [left, right] = [halves.subarray(0, 28), halves.subarray(28)];
    const turned = (half: Uint8Array) => [...half.subarray(shift), ...half.subarray(0, shift)];
    halves = Uint8Array.from([...turned(left), ...turned(right)]);
    return permuted(halves, CHOICE_2);
  });
}

/** Each bit of the salt that is set exchanges two places of the expansion, 24 apart. */
function salted(salt: string): number[] {
  const table = [...EXPANSION];
  for (let bit = 0; bit < 12; bit++) {
    const value = ALPHABET.indexOf(salt[Math.floor(bit / 6)]!);
    if ((value >> (bit % 6)) & 1) [table[bit], table[bit + 24]] = [table[bit + 24]!, table[bit]!];
  }
  return table;
}

function encrypt(block: Uint8Array, keys: readonly Uint8Array[], expansion: readonly number[]): Uint8Array {
  const start = permuted(block, INITIAL);
  let [left, right] = [start.subarray(0, 32), start.subarray(32)];
  for (const key of keys) {
    const mixed = permuted(right, expansion).map((bit, at) => bit ^ key[at]!);
    const chosen = BOXES.flatMap((box, index) => {
      const [a = 0, b = 0, c = 0, d = 0, e = 0, f = 0] = mixed.subarray(index * 6, index * 6 + 6);
      const value = box[(a * 2 + f) * 16 + b * 8 + c * 4 + d * 2 + e]!;
      return [value >> 3, (value >> 2) & 1, (value >> 1) & 1, value & 1];
    });
    const next = permuted(chosen, PERMUTATION).map((bit, at) => bit ^ left[at]!);
    [left, right] = [right, next];
  }
  return permuted([...right, ...left], FINAL);
}
