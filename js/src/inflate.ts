/**
 * Inflates raw deflate (RFC 1951) without waiting, where the platform has only a stream for it.
 *
 * Used once per process for the wasm module, and only outside Node.js, which has zlib. Written here because a library for
 * it takes longer to load than the module takes to inflate. The input is our own, so a flaw in it is an error, but how
 * good the error is does not matter.
 */

/** One Huffman code: indexed by the next `bits` bits, each entry is `symbol << 4 | length`, or 0 where no code begins so. */
interface Code {
  readonly table: Uint16Array
  readonly bits: number
}

const LENGTH_BASE = [3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258]
const LENGTH_EXTRA = [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0]
const DISTANCE_BASE = [
  1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289,
  16385, 24577,
]
const DISTANCE_EXTRA = [0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13]
/** The order in which a block tells the lengths of the code that its own codes are written in. */
const CODE_LENGTH_ORDER = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15]

const END_OF_BLOCK = 256

/** Inflates `input` into exactly `byteLength` bytes; anything else is an error. */
export function inflateRaw(input: Uint8Array, byteLength: number): Uint8Array<ArrayBuffer> {
  const output = new Uint8Array(byteLength)
  let written = 0
  let read = 0
  let hold = 0
  let held = 0

  /** At least 16 bits in `hold`; zeros past the end, which `take` notices. */
  const refill = (): void => {
    while (held < 16) {
      hold |= (input[read++] ?? 0) << held
      held += 8
    }
  }
  const take = (bits: number): number => {
    refill()
    const value = hold & ((1 << bits) - 1)
    hold >>>= bits
    held -= bits
    if (read - (held >> 3) > input.length) throw new Error('deflate: cut short')
    return value
  }
  const symbol = (code: Code): number => {
    refill()
    const entry = code.table[hold & ((1 << code.bits) - 1)]!
    if (entry === 0) throw new Error('deflate: no such code')
    take(entry & 15)
    return entry >>> 4
  }
  const room = (length: number): void => {
    if (written + length > byteLength) throw new Error('deflate: longer than told')
  }

  const stored = (): void => {
    take(held & 7)
    const length = take(16)
    if ((take(16) ^ length) !== 0xffff) throw new Error('deflate: wrong length')
    // Whole bytes that were read ahead go back.
    read -= held >> 3
    hold = held = 0
    room(length)
    if (read + length > input.length) throw new Error('deflate: cut short')
    output.set(input.subarray(read, read + length), written)
    read += length
    written += length
  }

  const compressed = (literals: Code, distances: Code): void => {
    for (;;) {
      const found = symbol(literals)
      if (found < END_OF_BLOCK) {
        room(1)
        output[written++] = found
        continue
      }
      if (found === END_OF_BLOCK) return
      const length = pick(LENGTH_BASE, found - 257) + take(pick(LENGTH_EXTRA, found - 257))
      const slot = symbol(distances)
      const distance = pick(DISTANCE_BASE, slot) + take(pick(DISTANCE_EXTRA, slot))
      if (distance > written) throw new Error('deflate: reaches before the start')
      room(length)
      // Byte by byte where the copy feeds on itself.
      if (distance >= length) output.copyWithin(written, written - distance, written - distance + length)
      else for (let i = written; i < written + length; i++) output[i] = output[i - distance]!
      written += length
    }
  }

  const dynamic = (): void => {
    const literalCount = take(5) + 257
    const distanceCount = take(5) + 1
    const codeLengthCount = take(4) + 4
    const codeLengths = new Uint8Array(19)
    for (let i = 0; i < codeLengthCount; i++) codeLengths[CODE_LENGTH_ORDER[i]!] = take(3)
    const codeLengthCode = codeOf(codeLengths)
    const lengths = new Uint8Array(literalCount + distanceCount)
    for (let i = 0; i < lengths.length; ) {
      const found = symbol(codeLengthCode)
      if (found < 16) {
        lengths[i++] = found
        continue
      }
      const value = found === 16 ? (lengths[i - 1] ?? 0) : 0
      const times = found === 16 ? 3 + take(2) : found === 17 ? 3 + take(3) : 11 + take(7)
      lengths.fill(value, i, i + times)
      i += times
    }
    compressed(codeOf(lengths.subarray(0, literalCount)), codeOf(lengths.subarray(literalCount)))
  }

  for (let last = 0; last === 0; ) {
    last = take(1)
    const kind = take(2)
    if (kind === 0) stored()
    else if (kind === 1) compressed(codeOf(fixedLiteralLengths()), codeOf(new Uint8Array(30).fill(5)))
    else if (kind === 2) dynamic()
    else throw new Error('deflate: no such block')
  }
  if (written !== byteLength) throw new Error('deflate: shorter than told')
  return output
}

/** The canonical code with these lengths, one per symbol; length 0 means that the symbol does not occur. */
function codeOf(lengths: Uint8Array): Code {
  const bits = Math.max(1, lengths.reduce((a, b) => Math.max(a, b), 0))
  const table = new Uint16Array(1 << bits)
  let next = 0
  for (let length = 1; length <= bits; length++, next <<= 1) {
    for (let symbol = 0; symbol < lengths.length; symbol++) {
      if (lengths[symbol] !== length) continue
      // Codes are sent with their first bit lowest.
      let reversed = 0
      for (let bit = 0; bit < length; bit++) reversed |= ((next >> bit) & 1) << (length - 1 - bit)
      for (let at = reversed; at < table.length; at += 1 << length) table[at] = (symbol << 4) | length
      next++
    }
  }
  return { table, bits }
}

function fixedLiteralLengths(): Uint8Array {
  return new Uint8Array(288).fill(8, 0, 144).fill(9, 144, 256).fill(7, 256, 280).fill(8, 280)
}

function pick(table: readonly number[], at: number): number {
  const value = table[at]
  if (value === undefined) throw new Error('deflate: no such symbol')
  return value
}
