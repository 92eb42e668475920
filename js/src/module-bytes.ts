/** The bytes of an embedded wasm module, without waiting. */
import { inflateRaw } from './inflate.js'

/** Inflates what `scripts/embed-wasm.mjs` has written. */
export function moduleBytes(deflatedBase64: string, byteLength: number): Uint8Array<ArrayBuffer> {
  const zlib = nodeZlib()
  if (zlib !== undefined) return zlib.inflateRawSync(Buffer.from(deflatedBase64, 'base64')) as Uint8Array<ArrayBuffer>
  const deflated = Uint8Array.from(atob(deflatedBase64), (character) => character.charCodeAt(0))
  return inflateRaw(deflated, byteLength)
}

/** Node's zlib, reached without an import, which a bundler for browsers could not follow. */
function nodeZlib(): typeof import('node:zlib') | undefined {
  return typeof process === 'object' ? process.getBuiltinModule?.('node:zlib') : undefined
}
