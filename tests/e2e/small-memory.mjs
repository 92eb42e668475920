// Wasm modules that may have little memory, so that one runs out of it for real: the allocator aborts, and the instance traps.

const MEMORY_SECTION = 5

/** From here on every module that is compiled in this process may have `pages` pages (64 KiB each) at most. */
export function limitMemory(pages) {
  const Module = WebAssembly.Module
  WebAssembly.Module = class extends Module {
    constructor(bytes) {
      super(withMaximum(bytes, pages))
    }
  }
}

/** A module's bytes with another maximum in the memory section, which is written over the one that is there. */
function withMaximum(bytes, pages) {
  const out = Uint8Array.from(bytes)
  let at = 8
  const varint = () => {
    let value = 0
    for (let shift = 0; ; shift += 7) {
      const byte = out[at++]
      value += (byte & 0x7f) * 2 ** shift
      if (byte < 0x80) return value
    }
  }
  for (;;) {
    const section = out[at++]
    const length = varint()
    if (section === MEMORY_SECTION) break
    at += length
  }
  varint() // one memory
  if ((varint() & 1) !== 1) throw new Error('the module has no maximum')
  varint() // minimum
  const start = at
  varint()
  const end = at
  for (let i = start, left = pages; i < end; i++, left >>>= 7) out[i] = (left & 0x7f) | (i < end - 1 ? 0x80 : 0)
  return out
}
