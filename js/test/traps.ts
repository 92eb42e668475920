// Traps in wasm, as the test wants them: while it stands, instances are made with a rigged call and a rigged witness. An instance
// that trapped must not be called again, as its memory means nothing any more; that it is counts in `calledAfter`.

/** A call that is about to be made: how many there were before it, in all instances, and what it is. */
export interface RiggedCall { readonly n: number; readonly instance: number; readonly op: number; readonly input: Uint8Array }

type Exports = Record<string, unknown> & { memory: WebAssembly.Memory; replica_call: (...args: number[]) => unknown }
type Imports = Record<string, Record<string, (...args: number[]) => unknown>>

export class Traps {
  /** Calls made in all instances, instances made, traps. */
  calls = 0
  instances = 0
  trapped = 0
  /** Calls of instances that had trapped. */
  calledAfter = 0
  /** Whether a call traps: before the module was entered, or when it is all done and only its answer is missing. */
  plan: (call: RiggedCall) => 'before' | 'after' | undefined = () => undefined
  /** Whether an engine traps that is given something for a segment within that call. */
  poison: (segment: number, call: RiggedCall) => boolean = () => false
  readonly #original = WebAssembly.Instance

  constructor() {
    const traps = this
    const Original = this.#original
    WebAssembly.Instance = class {
      constructor(module: WebAssembly.Module, imports: Imports) {
        return traps.#rig(Original, module, imports)
      }
    } as unknown as typeof WebAssembly.Instance
  }

  /** The platform's own again. */
  end(): void {
    WebAssembly.Instance = this.#original
  }

  #rig(Original: typeof WebAssembly.Instance, module: WebAssembly.Module, imports: Imports): object {
    const instance = this.instances++
    let broken = false
    let current: RiggedCall | undefined
    const trap = (): never => {
      broken = true
      this.trapped += 1
      throw new WebAssembly.RuntimeError('unreachable')
    }
    const rigged = Object.fromEntries(Object.entries(imports).map(([name, functions]) => [name, { ...functions }]))
    for (const functions of Object.values(rigged)) {
      for (const [name, touching] of Object.entries(functions)) {
        if (!name.includes('touching')) continue
        functions[name] = segment => {
          touching(segment!)
          if ((segment! >>> 0) !== 0xffff_ffff && current !== undefined && this.poison(segment!, current)) trap()
        }
      }
    }
    const exports = new Original(module, rigged).exports as Exports
    const replica_call = (pointer: number, op: number, at: number, length: number): unknown => {
      if (broken) {
        this.calledAfter += 1
        throw new WebAssembly.RuntimeError('called after it trapped')
      }
      current = { n: this.calls++, instance, op, input: new Uint8Array(exports.memory.buffer).slice(at >>> 0, (at >>> 0) + length) }
      const when = this.plan(current)
      if (when === 'before') trap()
      try {
        const answer = exports.replica_call(pointer, op, at, length)
        return when === 'after' ? trap() : answer
      } catch (error) {
        if (error instanceof WebAssembly.RuntimeError && !broken) {
          broken = true
          this.trapped += 1
        }
        throw error
      } finally {
        current = undefined
      }
    }
    return { exports: { ...exports, replica_call } }
  }
}

/** Whether bytes hold a text. */
export function holds(bytes: Uint8Array, text: string): boolean {
  return Buffer.from(bytes).includes(text)
}
