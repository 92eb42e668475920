/**
 * The full wasm module, which has the engine that keeps history too. Three times the size of the small one, so nothing may
 * import this file but a dynamic `import()`: bundlers then put it in a piece of its own, and programs that need no history
 * never fetch it. A replica moves here from the small module by `OP.export` and `OP.import`.
 */
import { deflatedBase64, byteLength } from './generated/full-bytes.js'
import { createInstance, type Instance, type Replica } from './generated/full.js'
import { moduleBytes } from './module-bytes.js'

export type { Instance, Replica }

let compiled: WebAssembly.Module | undefined

/** Compiles the module, off the main thread where the engine can; once per process. */
export async function prepare(): Promise<void> {
  compiled ??= await WebAssembly.compile(moduleBytes(deflatedBase64, byteLength))
}

/** A fresh instance with its own memory. */
export function instantiate(touching: (segment: number) => void): Instance {
  compiled ??= new WebAssembly.Module(moduleBytes(deflatedBase64, byteLength))
  return createInstance(compiled, touching)
}
