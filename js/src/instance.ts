/**
 * Instances of the wasm modules, one per open heap: the small module at once, the full one when it is needed.
 *
 * Programs start with the small module. The full one, which has the engine that keeps history, is fetched by a dynamic
 * `import()` and compiled once per process, when a heap first meets a segment with history or makes one. `heap.ts` then moves
 * the heap's replica into an instance of it (`OP.export`, `OP.import`).
 */

import { HeapError } from './errors.js'
import { instantiate } from './wasm.js'
import type { WasmReplica } from './edge.js'

/** A replica in an instance of its own. */
export interface ReplicaInstance {
  readonly replica: WasmReplica
  /** Bytes of memory that the instance has. */
  memory(): number
  /** The segment whose engine was given something from elsewhere when the instance trapped; `undefined` if none was. */
  touching(): number | undefined
}

/**
 * In the place of the instance of a heap that is closed: who still holds that heap, or an object of it, holds no module's memory.
 * Nothing calls it.
 */
export const GONE: ReplicaInstance = {
  replica: { call() { throw new Error('the heap is closed') } },
  memory: () => 0,
  touching: () => undefined,
}

/** Makes a replica from the options that `core/src/edge.rs` describes. */
export type MakeReplica = (options: Uint8Array) => ReplicaInstance

/** A replica in the small module. */
export function makeReplica(options: Uint8Array): ReplicaInstance {
  return within(instantiate, options)
}

let full: Promise<MakeReplica> | undefined
let fullNow: MakeReplica | undefined

/** The full module, if it is here already. */
export function fullModule(): MakeReplica | undefined {
  return fullNow
}

/** Fetches and compiles the full module. Rejects with `ERR_ENGINE` (retryable) if it cannot be had; the next call tries again. */
export function loadFullModule(): Promise<MakeReplica> {
  return (full ??= fetchFull().catch((cause: unknown) => {
    full = undefined
    throw notToBeHad('loaded', cause)
  }))
}

function notToBeHad(done: string, cause: unknown): HeapError {
  return new HeapError('ERR_ENGINE', `the wasm module for segments with history could not be ${done}: ${cause instanceof Error ? cause.message : String(cause)}`, { retryable: true, cause })
}

async function fetchFull(): Promise<MakeReplica> {
  const module = await import('./wasm-full.js')
  await module.prepare()
  return (fullNow = options => {
    try {
      return within(module.instantiate, options)
    } catch (cause) {
      throw notToBeHad('started', cause)
    }
  })
}

interface Module {
  readonly Replica: new (options: Uint8Array) => WasmReplica
  readonly memory: { readonly buffer: ArrayBuffer }
}

const NO_SEGMENT = 0xffff_ffff

function within(instantiate: (touching: (segment: number) => void) => Module, options: Uint8Array): ReplicaInstance {
  let touched = NO_SEGMENT
  const { Replica, memory } = instantiate(segment => { touched = segment })
  const size = (): number => memory.buffer.byteLength
  return { replica: roomy(new Replica(options), size), memory: size, touching: () => (touched === NO_SEGMENT ? undefined : touched) }
}

/** An operation that no build knows: its input is copied in and refused. */
const NO_OP = 0xffff_ffff
const ROOMY_FROM = 4 << 20
/** Near the cap on its memory an instance takes no more than it needs. */
const ROOMY_TO = 768 << 20

/**
 * Lets the instance's memory grow by an eighth at a time. Its allocator grows it by what it needs, page by page, and each
 * time the collector counts the whole memory anew as fresh, so that it ran for most of a large import.
 */
function roomy(replica: WasmReplica, size: () => number): WasmReplica {
  let seen = size()
  return {
    call(op, input) {
      const records = replica.call(op, input)
      const now = size()
      if (now !== seen) {
        if (now > ROOMY_FROM && now < ROOMY_TO) {
          try {
            replica.call(NO_OP, new Uint8Array(now >> 3))
          } catch { /* as meant: the room it took is free again, and stays */ }
        }
        seen = size()
      }
      return records
    },
    free: () => replica.free?.(),
  }
}
