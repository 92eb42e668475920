/**
 * The wasm module, and the one file that imports what is generated from it.
 *
 * The module is inlined and made without waiting, so that `require('coheap')` works, and so that no bundler has to know
 * about wasm. It is compiled once per process (or worker thread); every replica gets an instance of its own, because an
 * instance is disposable: after a trap, or to give grown memory back, it is dropped and another made.
 */
import { deflatedBase64, byteLength } from './generated/coheap-bytes.js'
import { createInstance, type Instance, type Replica } from './generated/coheap.js'
import { inflateRaw } from './inflate.js'

export type { Instance, Replica }

let compiled: WebAssembly.Module | undefined

/** A fresh instance with its own memory. Costs about a millisecond; the first call of a process compiles the module. */
export function instantiate(): Instance {
  compiled ??= new WebAssembly.Module(moduleBytes())
  return createInstance(compiled)
}

function moduleBytes(): Uint8Array<ArrayBuffer> {
  const zlib = nodeZlib()
  if (zlib !== undefined) return zlib.inflateRawSync(Buffer.from(deflatedBase64, 'base64')) as Uint8Array<ArrayBuffer>
  const deflated = Uint8Array.from(atob(deflatedBase64), (character) => character.charCodeAt(0))
  return inflateRaw(deflated, byteLength)
}

/** Node's zlib, reached without an import, which a bundler for browsers could not follow. */
function nodeZlib(): typeof import('node:zlib') | undefined {
  return typeof process === 'object' ? process.getBuiltinModule?.('node:zlib') : undefined
}
