/**
 * The edge: readers and writers of the byte buffers that cross between JavaScript and wasm, one in and one out per call.
 *
 * `core/src/edge.rs` is the other end of this page and the contract: operations, values, edits, patches and records are
 * described there and only numbered here. Nothing in this file knows what a heap is.
 *
 * ```text
 * heap ── input (Writer) ──► WasmReplica.call(op, input) ── records (Reader) ──► driver
 * ```
 *
 * Strings are UTF-8; lone surrogates become U+FFFD on the way out, so what was written reads back the same everywhere.
 * Keys are interned while reading: a table of rows repeats the same few keys thousands of times.
 */

import { decodeId, encodeId, type Id } from './uuid.js'

/** The one class the wasm module exports, as far as this package uses it. */
export interface WasmReplica {
  call(op: number, input: Uint8Array): Uint8Array
  free?(): void
}

/** Operations of `call`. */
export const OP = {
  tick: 0, commit: 1, receive: 2, connected: 3, disconnected: 4, load: 5, evict: 6, wait: 7, cancel: 8, dump: 9, derive: 10,
  join: 11, leave: 12, claim: 13, release: 14, presence: 15, object: 16, find: 17, stats: 18, export: 19, import: 20, replaced: 21,
  resume: 22, restore: 23, keep: 24, pack: 25,
} as const

/** Kinds of records. */
export const RECORD = {
  send: 1, apply: 2, loaded: 3, committed: 4, acked: 5, online: 6, done: 7, failed: 8, refused: 9, problem: 10, deadline: 11,
  index: 12, evicted: 13, derived: 14, object: 15, joined: 16, group: 17, claimed: 18, lost: 19, member: 20, stats: 21, fatal: 22, needsFull: 23, packed: 24, overruled: 25, forked: 26, inDoubt: 27, reconnect: 28, restoring: 29, keep: 30, conflict: 31,
  atRest: 33, awake: 34,
  error: 255,
} as const

/** Tags of values. */
export const TAG = { null: 0, false: 1, true: 2, f64: 3, int: 4, str: 5, bigint: 6, date: 7, bytes: 8, ref: 9, container: 10 } as const

/** Kinds of containers. */
export const KIND = { map: 0, list: 1, text: 2, counter: 3, set: 4 } as const
export type Kind = (typeof KIND)[keyof typeof KIND]

/** Numbers of edits and of patches (9 is `add` in an edit, `total` in a patch). */
export const EDIT = {
  set: 1, delete: 2, insert: 4, remove: 5, put: 6, move: 7, splice: 8, add: 9, include: 10, exclude: 11, root: 12, clear: 13,
  default: 14, mark: 15, near: 16,
} as const

/** Bounds of `core/src/limits.rs` that are checked before a batch crosses. */
export const LIMIT = { commitBytes: 1 << 20, valueBytes: 256 * 1024, keyBytes: 4096, depth: 64, labelBytes: 1024, editsPerCommit: 1000, segmentBytesSoft: 8 << 20 } as const

const INT_MAX = 2 ** 52 - 1
const encoder = new TextEncoder()
const decoder = new TextDecoder('utf-8', { ignoreBOM: true })

/** Whether a number crosses as an integer; the rest (−0 included) crosses as f64. */
export function isEdgeInteger(n: number): boolean {
  return Number.isInteger(n) && n >= -INT_MAX && n <= INT_MAX && !Object.is(n, -0)
}

/** UTF-8 length of a string without encoding it. */
export function utf8Length(s: string): number {
  let length = s.length
  for (let i = 0; i < s.length; i++) {
    const code = s.charCodeAt(i)
    if (code < 0x80) continue
    if (code < 0x800) length += 1
    else if (code >= 0xd800 && code < 0xdc00 && (s.charCodeAt(i + 1) & 0xfc00) === 0xdc00) {
      length += 2
      i++
    } else length += 2
  }
  return length
}

/** Replaces lone surrogates by U+FFFD. */
export function wellFormed(s: string): string {
  for (let i = 0; i < s.length; i++) {
    const code = s.charCodeAt(i)
    if ((code & 0xf800) !== 0xd800) continue
    if (code < 0xdc00 && (s.charCodeAt(i + 1) & 0xfc00) === 0xdc00) i++
    else return decoder.decode(encoder.encode(s))
  }
  return s
}

/** A growing buffer. */
export class Writer {
  #bytes: Uint8Array
  #view: DataView
  length = 0

  constructor(capacity = 256) {
    this.#bytes = new Uint8Array(capacity)
    this.#view = new DataView(this.#bytes.buffer)
  }

  #room(more: number): void {
    const need = this.length + more
    if (need <= this.#bytes.length) return
    const grown = new Uint8Array(Math.max(need, this.#bytes.length * 2))
    grown.set(this.#bytes.subarray(0, this.length))
    this.#bytes = grown
    this.#view = new DataView(grown.buffer)
  }

  u8(n: number): this {
    this.#room(1)
    this.#bytes[this.length++] = n
    return this
  }

  varint(n: number): this {
    if (!(n >= 0 && n <= Number.MAX_SAFE_INTEGER)) throw new RangeError(`not a varint: ${n}`)
    this.#room(8)
    while (n >= 0x80) {
      this.#bytes[this.length++] = (n % 128) | 0x80
      n = n < 0x8000_0000 ? n >>> 7 : Math.floor(n / 128)
    }
    this.#bytes[this.length++] = n
    return this
  }

  /** A u64 above what a number holds exactly. */
  varintBig(n: bigint): this {
    this.#room(10)
    while (n >= 0x80n) {
      this.#bytes[this.length++] = Number(n & 0x7fn) | 0x80
      n >>= 7n
    }
    this.#bytes[this.length++] = Number(n)
    return this
  }

  /** An id of 22 characters as its 16 bytes. */
  idOf(id: Id): this {
    return this.raw(decodeId(id)!)
  }

  f64(n: number): this {
    this.#room(8)
    this.#view.setFloat64(this.length, n, true)
    this.length += 8
    return this
  }

  /** Bytes as they are. */
  raw(bytes: Uint8Array): this {
    this.#room(bytes.length)
    this.#bytes.set(bytes, this.length)
    this.length += bytes.length
    return this
  }

  /** A part of what another one wrote. */
  copy(from: Writer, start: number, end: number): this {
    this.#room(end - start)
    if (end - start > 64) this.#bytes.set(from.#bytes.subarray(start, end), this.length)
    else for (let i = start, at = this.length; i < end; i++) this.#bytes[at++] = from.#bytes[i]!
    this.length += end - start
    return this
  }

  /** Bytes behind their length. */
  bytes(bytes: Uint8Array): this {
    return this.varint(bytes.length).raw(bytes)
  }

  str(s: string): this {
    const short = s.length < 128
    if (short) {
      this.#room(s.length + 1)
      let at = this.length + 1
      let i = 0
      for (; i < s.length; i++) {
        const code = s.charCodeAt(i)
        if (code >= 0x80) break
        this.#bytes[at++] = code
      }
      if (i === s.length) {
        this.#bytes[this.length] = s.length
        this.length = at
        return this
      }
    }
    return this.bytes(encoder.encode(s))
  }

  /** A value that is not a container. */
  number(n: number): this {
    if (!isEdgeInteger(n)) return this.u8(TAG.f64).f64(n)
    return this.u8(TAG.int).varint(n >= 0 ? n * 2 : -n * 2 - 1)
  }

  bigint(n: bigint): this {
    return this.u8(TAG.bigint).varintBig(n >= 0n ? n * 2n : -n * 2n - 1n)
  }

  /** A copy of what was written from `start` on. */
  slice(start = 0): Uint8Array {
    return this.#bytes.slice(start, this.length)
  }

  /** What was written, as a view that the next write may overwrite. */
  view(): Uint8Array {
    return this.#bytes.subarray(0, this.length)
  }

  /** Forgets what was written from `length` on. */
  truncate(length = 0): void {
    this.length = length
  }
}

const interned: (string | undefined)[] = new Array<string | undefined>(4096).fill(undefined)

/** Reads a buffer from its start. Throws RangeError past its end: the two ends of the edge do not match. */
export class Reader {
  readonly #bytes: Uint8Array
  #view: DataView | undefined
  #at = 0

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes
  }

  get left(): number {
    return this.#bytes.length - this.#at
  }

  #take(length: number): number {
    const at = this.#at
    if (length > this.#bytes.length - at) throw new RangeError('the edge buffer ends early')
    this.#at = at + length
    return at
  }

  u8(): number {
    return this.#bytes[this.#take(1)]!
  }

  varint(): number {
    let n = 0
    let factor = 1
    for (let i = 0; i < 10; i++) {
      const byte = this.#bytes[this.#take(1)]!
      n += (byte & 0x7f) * factor
      if (byte < 0x80) return n
      factor *= 128
    }
    throw new RangeError('a varint of the edge is too long')
  }

  varintBig(): bigint {
    let n = 0n
    for (let shift = 0n; shift < 70n; shift += 7n) {
      const byte = this.#bytes[this.#take(1)]!
      n |= BigInt(byte & 0x7f) << shift
      if (byte < 0x80) return n
    }
    throw new RangeError('a varint of the edge is too long')
  }

  zigzag(): number {
    const start = this.#at
    const n = this.varint()
    if (n <= Number.MAX_SAFE_INTEGER) return n % 2 === 0 ? n / 2 : -(n + 1) / 2
    this.#at = start
    return Number(this.zigzagBig())
  }

  zigzagBig(): bigint {
    const n = this.varintBig()
    return (n & 1n) === 0n ? n >> 1n : -((n + 1n) >> 1n)
  }

  f64(): number {
    this.#view ??= new DataView(this.#bytes.buffer, this.#bytes.byteOffset, this.#bytes.length)
    return this.#view.getFloat64(this.#take(8), true)
  }

  /** A view into the buffer: copy what is to be kept. */
  bytes(): Uint8Array {
    const length = this.varint()
    const at = this.#take(length)
    return this.#bytes.subarray(at, at + length)
  }

  /** All that is left, as a view. */
  rest(): Uint8Array {
    const at = this.#take(this.left)
    return this.#bytes.subarray(at)
  }

  str(): string {
    const length = this.varint()
    const at = this.#take(length)
    const bytes = this.#bytes
    if (length <= 24) {
      let out = ''
      let i = at
      for (; i < at + length; i++) {
        const code = bytes[i]!
        if (code >= 0x80) break
        out += String.fromCharCode(code)
      }
      if (i === at + length) return out
    }
    return decoder.decode(bytes.subarray(at, at + length))
  }

  /** A string that is likely to come again. */
  key(): string {
    const length = this.varint()
    const at = this.#take(length)
    const bytes = this.#bytes
    if (length > 32) return decoder.decode(bytes.subarray(at, at + length))
    let hash = length
    let ascii = true
    for (let i = at; i < at + length; i++) {
      const code = bytes[i]!
      if (code >= 0x80) ascii = false
      hash = (Math.imul(hash, 31) + code) | 0
    }
    if (!ascii) return decoder.decode(bytes.subarray(at, at + length))
    const slot = hash & 4095
    const known = interned[slot]
    if (known !== undefined && known.length === length) {
      let i = 0
      while (i < length && known.charCodeAt(i) === bytes[at + i]) i++
      if (i === length) return known
    }
    let out = ''
    for (let i = at; i < at + length; i++) out += String.fromCharCode(bytes[i]!)
    interned[slot] = out
    return out
  }

  id(): Id {
    const at = this.#take(16)
    return encodeId(this.#bytes.subarray(at, at + 16))
  }

  list<T>(read: (reader: Reader) => T): T[] {
    const count = this.varint()
    if (count > this.left) throw new RangeError('a list of the edge is longer than its buffer')
    const out: T[] = []
    for (let i = 0; i < count; i++) out.push(read(this))
    return out
  }
}
