/**
 * Ids: 16 bytes on the edge, 22 characters of base64url in a program's hands.
 *
 * Fresh ids are UUIDv7 (time first, so that what is made together lies together), from the platform's entropy. Derived ids
 * are made in wasm only. Next: `refs.ts`, which prints them.
 */

const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'
const VALUES = new Int8Array(128).fill(-1)
for (let i = 0; i < 64; i++) VALUES[ALPHABET.charCodeAt(i)] = i

/** An id as 22 characters of base64url. */
export type Id = string

/** A fresh UUIDv7. */
export function freshId(nowMs: number = Date.now()): Uint8Array {
  const id = entropy(16)
  let time = nowMs
  for (let i = 5; i >= 0; i--) {
    id[i] = time % 256
    time = Math.floor(time / 256)
  }
  id[6] = 0x70 | (id[6]! & 0x0f)
  id[8] = 0x80 | (id[8]! & 0x3f)
  return id
}

/** Bytes from the platform's source of entropy. */
export function entropy(length: number): Uint8Array {
  return globalThis.crypto.getRandomValues(new Uint8Array(length))
}

/** Base64url of 16 bytes, without padding. */
export function encodeId(bytes: Uint8Array): Id {
  let out = ''
  for (let i = 0; i < 15; i += 3) {
    const n = (bytes[i]! << 16) | (bytes[i + 1]! << 8) | bytes[i + 2]!
    out += ALPHABET[n >> 18]! + ALPHABET[(n >> 12) & 63]! + ALPHABET[(n >> 6) & 63]! + ALPHABET[n & 63]!
  }
  const last = bytes[15]!
  return out + ALPHABET[last >> 2]! + ALPHABET[(last & 3) << 4]!
}

/** The inverse of {@link encodeId}; `undefined` for anything it could not have made. */
export function decodeId(text: string): Uint8Array | undefined {
  if (text.length !== 22) return undefined
  const out = new Uint8Array(16)
  let bits = 0
  let held = 0
  let at = 0
  for (let i = 0; i < 22; i++) {
    const code = text.charCodeAt(i)
    const six = code < 128 ? VALUES[code]! : -1
    if (six < 0) return undefined
    bits = (bits << 6) | six
    held += 6
    if (held >= 8) {
      held -= 8
      out[at++] = (bits >> held) & 0xff
    }
  }
  return (bits & 0x0f) === 0 ? out : undefined
}

const MASK = (1n << 64n) - 1n
const rotate = (x: bigint, by: bigint): bigint => ((x << by) | (x >> (64n - by))) & MASK

/**
 * The id of the replica that was made with a seed: the first 16 bytes of xoshiro256++ on it, as `core/src/replica.rs` draws
 * them. The edge has no record that tells it.
 */
export function replicaIdOf(seed: Uint8Array): Uint8Array {
  const view = new DataView(seed.buffer, seed.byteOffset, 32)
  const s = [0, 8, 16, 24].map(at => view.getBigUint64(at, true)) as [bigint, bigint, bigint, bigint]
  const out = new DataView(new ArrayBuffer(16))
  for (const at of [0, 8]) {
    out.setBigUint64(at, (rotate((s[0] + s[3]) & MASK, 23n) + s[0]) & MASK, true)
    const t = (s[1] << 17n) & MASK
    s[2] ^= s[0]
    s[3] ^= s[1]
    s[1] ^= s[2]
    s[0] ^= s[3]
    s[2] ^= t
    s[3] = rotate(s[3], 45n)
  }
  return new Uint8Array(out.buffer)
}
