// The inflate for browsers, against zlib: every kind of block, and input that is not whole.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { constants, deflateRawSync, type ZlibOptions } from 'node:zlib'
import { inflateRaw } from '../src/inflate.js'

const check = (bytes: Uint8Array, options: ZlibOptions): void => {
  const inflated = inflateRaw(deflateRawSync(bytes, options), bytes.length)
  assert.equal(Buffer.compare(inflated, bytes), 0, `${bytes.length} bytes, ${JSON.stringify(options)}`)
}

/** Bytes that repeat themselves as often as `alphabet` is small; the same for the same seed. */
const sample = (length: number, alphabet: number, seed: number): Uint8Array => {
  const bytes = new Uint8Array(length)
  for (let i = 0, state = seed; i < length; i++) {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0
    bytes[i] = (state >>> 16) % alphabet
  }
  return bytes
}

test('what zlib deflates comes back, whatever the block', () => {
  const strategies = [constants.Z_DEFAULT_STRATEGY, constants.Z_FIXED, constants.Z_HUFFMAN_ONLY, constants.Z_RLE]
  for (const length of [0, 1, 2, 258, 259, 65_535, 65_536, 200_001]) {
    for (const alphabet of [1, 2, 17, 256]) {
      const bytes = sample(length, alphabet, length + alphabet)
      for (const level of [0, 1, 9]) for (const strategy of strategies) check(bytes, { level, strategy })
    }
  }
})

test('input that is cut short, or of another length than told, is an error and not silence', () => {
  const bytes = sample(5_000, 17, 1)
  for (const level of [0, 9]) {
    const deflated = deflateRawSync(bytes, { level })
    for (let length = 0; length < deflated.length; length += 7) {
      assert.throws(() => inflateRaw(deflated.subarray(0, length), bytes.length), /deflate: /)
    }
    assert.throws(() => inflateRaw(deflated, bytes.length - 1), /longer than told/)
    assert.throws(() => inflateRaw(deflated, bytes.length + 1), /shorter than told/)
  }
})
