/**
 * The small wasm module, and the one file that imports what is generated from it. `wasm-full.ts` is its twin.
 *
 * The module is inlined and made without waiting, so that `require('coheap')` works, and so that no bundler has to know
 * about wasm. It is compiled once per process (or worker thread); every replica gets an instance of its own, because an
 * instance is disposable: after a trap, or to give grown memory back, it is dropped and another made.
 */
import { deflatedBase64, byteLength } from './generated/coheap-bytes.js'
import { createInstance, type Instance, type Replica } from './generated/coheap.js'
import { moduleBytes } from './module-bytes.js'

export type { Instance, Replica }

let compiled: WebAssembly.Module | undefined

/**
 * A fresh instance with its own memory. Costs about a millisecond; the first call of a process compiles the module. `touching`
 * hears the index of a segment whose engine is about to be given what came from elsewhere, and 0xffffffff when that is over.
 */
export function instantiate(touching: (segment: number) => void): Instance {
  compiled ??= new WebAssembly.Module(moduleBytes(deflatedBase64, byteLength))
  return createInstance(compiled, touching)
}
