// A fixed world: while it stands, time, timers, entropy and the garbage collector are the test's, so that one number decides
// a whole run. Microtasks stay the platform's: `settled()` waits until there are none.
import { HeapRef } from '../src/refs.js'

/** A number from 0 to `below` − 1. */
export type Pick = (below: number) => number

/** A small generator whose whole state is a number. */
export function chance(seed: number): Pick {
  let state = (Math.imul(seed, 2654435761) + 12345) | 0
  return below => {
    state = (Math.imul(state ^ (state >>> 15), 0x2c1b3c6d) + 0x9e3779b9) | 0
    const mixed = Math.imul(state ^ (state >>> 12), 0x297a2d39)
    return ((mixed ^ (mixed >>> 15)) >>> 0) % below
  }
}

interface Timer { at: number; fn: () => void }

export class FixedWorld {
  #nowMs = 1000
  #timers: Timer[] = []
  #restore: (() => void)[] = []
  #collections = 0

  constructor(seed: number) {
    const pick = chance(seed)
    const world = this
    /** A weak reference that is cleared when the test says so; names (Refs) are held by the mirrors that store them. */
    class Weak<T extends object> {
      readonly #target: T
      readonly #made = world.#collections
      constructor(target: T) { this.#target = target }
      deref(): T | undefined { return this.#target instanceof HeapRef || this.#made === world.#collections ? this.#target : undefined }
    }
    this.#replace(globalThis, 'WeakRef', Weak)
    this.#replace(globalThis, 'setTimeout', (fn: () => void, ms = 0) => {
      const timer = { at: this.#nowMs + Math.max(1, ms), fn }
      this.#timers.push(timer)
      return timer
    })
    this.#replace(globalThis, 'clearTimeout', (timer: unknown) => { this.#timers = this.#timers.filter(each => each !== timer) })
    this.#replace(Math, 'random', () => pick(2 ** 30) / 2 ** 30)
    this.#replace(Date, 'now', () => 1_700_000_000_000 + this.#nowMs)
    this.#replace(performance, 'now', () => this.#nowMs)
    this.#replace(globalThis.crypto, 'getRandomValues', (bytes: Uint8Array) => {
      for (let i = 0; i < bytes.length; i++) bytes[i] = pick(256)
      return bytes
    })
  }

  #replace(of: object, name: string, by: unknown): void {
    const own = Object.getOwnPropertyDescriptor(of, name)
    Object.defineProperty(of, name, { value: by, writable: true, configurable: true, enumerable: own?.enumerable ?? true })
    this.#restore.push(() => {
      if (own === undefined) delete (of as Record<string, unknown>)[name]
      else Object.defineProperty(of, name, own)
    })
  }

  /** Lets time pass, and runs what was due, in order. */
  pass(ms: number): void {
    const end = this.#nowMs + ms
    for (;;) {
      const due = this.#timers.filter(timer => timer.at <= end).sort((a, b) => a.at - b.at)[0]
      if (due === undefined) break
      this.#timers.splice(this.#timers.indexOf(due), 1)
      this.#nowMs = Math.max(this.#nowMs, due.at)
      due.fn()
    }
    this.#nowMs = end
  }

  /** The collector runs, and finds that the program holds no live object. */
  collect(): void {
    this.#collections += 1
  }

  /** The platform's own again. */
  end(): void {
    for (const restore of this.#restore.reverse()) restore()
  }
}

const later = setImmediate

/** Resolves when all microtasks have run. */
export function settled(): Promise<void> {
  return new Promise(resolve => { later(resolve) })
}
