// The bytes of the edge: what is written reads back, bounds hold, and strings survive whatever JavaScript makes of them.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isEdgeInteger, Reader, TAG, utf8Length, wellFormed, Writer } from '../src/edge.js'
import { decodeId, encodeId, freshId, replicaIdOf } from '../src/uuid.js'

test('varints of every size come back', () => {
  for (const n of [0, 1, 127, 128, 300, 2 ** 31 - 1, 2 ** 31, 2 ** 32, 2 ** 40 + 5, Number.MAX_SAFE_INTEGER]) {
    assert.equal(new Reader(new Writer().varint(n).slice()).varint(), n)
  }
  assert.deepEqual([...new Writer().varint(300).slice()], [0xac, 0x02])
  assert.throws(() => new Writer().varint(-1), RangeError)
  assert.throws(() => new Writer().varint(2 ** 53), RangeError)
})

test('numbers cross as integers where that is exact, else as f64', () => {
  for (const n of [0, 1, -1, 63, -64, 2 ** 52 - 1, -(2 ** 52 - 1), 2 ** 52, -0, 0.5, NaN, Infinity, 1e300, Number.MAX_SAFE_INTEGER]) {
    const r = new Reader(new Writer().number(n).slice())
    const tag = r.u8()
    assert.equal(tag, isEdgeInteger(n) ? TAG.int : TAG.f64)
    assert.ok(Object.is(tag === TAG.int ? r.zigzag() : r.f64(), n), String(n))
  }
  assert.equal(new Reader(new Writer().varintBig(2n ** 54n - 2n).slice()).zigzag(), 2 ** 53 - 1)
})

test('bigints of 64 bits come back', () => {
  for (const n of [0n, 1n, -1n, 2n ** 63n - 1n, -(2n ** 63n), 123456789012345678n]) {
    const r = new Reader(new Writer().bigint(n).slice())
    assert.equal(r.u8(), TAG.bigint)
    assert.equal(r.zigzagBig(), n)
  }
})

test('strings are UTF-8, and lone surrogates become U+FFFD', () => {
  for (const s of ['', 'a', 'ä', '€', '😀', 'x'.repeat(200), 'é'.repeat(100), '\u0000']) {
    const bytes = new Writer().str(s).slice()
    assert.equal(new Reader(bytes).str(), s)
    assert.equal(new Reader(bytes).key(), s)
    assert.equal(utf8Length(s), new TextEncoder().encode(s).length)
  }
  for (const s of ['\ud800', 'a\udc00b', '\ud800\ud800', '😀\ud83d']) {
    assert.equal(new Reader(new Writer().str(s).slice()).str(), wellFormed(s))
    assert.equal(utf8Length(s), new TextEncoder().encode(s).length)
  }
  assert.equal(wellFormed('😀'), '😀')
  assert.equal(wellFormed('a\udc00'), 'a\ufffd')
})

test('a key read twice is the same string, and a hash that collides is not', () => {
  const bytes = new Writer().str('population').str('population').str('noitalupop').slice()
  const r = new Reader(bytes)
  assert.deepEqual([r.key(), r.key(), r.key()], ['population', 'population', 'noitalupop'])
})

test('reading past the end throws, and a list cannot be longer than its buffer', () => {
  assert.throws(() => new Reader(new Uint8Array()).u8(), RangeError)
  assert.throws(() => new Reader(Uint8Array.of(5, 1)).bytes(), RangeError)
  assert.throws(() => new Reader(Uint8Array.of(200, 1)).list(r => r.u8()), RangeError)
  assert.throws(() => new Reader(new Uint8Array(11).fill(0xff)).varint(), RangeError)
})

test('ids print as 22 characters and parse back', () => {
  for (let i = 0; i < 200; i++) {
    const id = freshId()
    assert.deepEqual(decodeId(encodeId(id)), id)
  }
  assert.equal(encodeId(new Uint8Array(16)), 'A'.repeat(22))
  for (const bad of ['', 'short', 'A'.repeat(21) + 'B', 'A'.repeat(23), '!'.repeat(22), 'é'.repeat(22)]) assert.equal(decodeId(bad), undefined)
  const [early, late] = [encodeId(freshId(1000)), encodeId(freshId(2000))]
  assert.notEqual(early, late)
  assert.equal(freshId()[6]! >> 4, 7)
})

test('a replica knows the id that the core draws from its seed', () => {
  // xoshiro256++ on the seed 1, 2, 3, 4: the reference's first two outputs.
  const seed = new Uint8Array(new BigUint64Array([1n, 2n, 3n, 4n]).buffer)
  const words = new BigUint64Array(replicaIdOf(seed).slice().buffer)
  assert.deepEqual([...words], [41943041n, 58720359n])
})
