/**
 * Whether mirrors are right: in a process with `COHEAP_DEBUG` in its environment, every mirror that a call touched is compared
 * with what its engine holds when the call is over. Asked at each `open`; nowhere else does it cost anything.
 */

import type { Answer, Driver } from './driver.js'
import { OP } from './edge.js'
import { compare } from './patches.js'
import type { RefTable } from './refs.js'
import type { Segment } from './residence.js'
import type { Writing } from './writing.js'

/** What a comparison asks of its space. */
export interface Compared {
  readonly driver: Driver
  readonly refs: RefTable
  readonly writing: Writing
}

/** The segments of one heap that are to be compared. */
export class Comparison {
  readonly #space: Compared
  readonly #due = new Set<Segment>()

  constructor(space: Compared) {
    this.#space = space
  }

  /** Whether this process wants it. */
  static wanted(): boolean {
    return (globalThis as { process?: { env?: Record<string, string | undefined> } }).process?.env?.['COHEAP_DEBUG'] !== undefined
  }

  /** To be compared when the call is over. */
  add(segment: Segment): void {
    this.#due.add(segment)
  }

  /** Compares all that is due. For when no call is under way. */
  run(): void {
    const segments = [...this.#due]
    this.#due.clear()
    for (const segment of segments) this.#compare(segment)
  }

  /**
   * Throws if a mirror differs from what the engine holds, here and once more where nobody can catch it: in Node.js that
   * ends the process. What is being written, and what the relay has not given yet, is not compared.
   */
  #compare(segment: Segment): void {
    const { driver, refs, writing } = this.#space
    const { mirror } = segment
    if (mirror === undefined || !driver.alive || segment.index < 0 || segment.standing !== 'here' || writing.holding || writing.openSection(mirror) !== undefined) return
    let answer: Answer
    try {
      answer = driver.call(OP.dump, w => w.varint(segment.index))
    } catch (error) {
      // There is no engine to compare with.
      if (!driver.alive) return
      throw error
    }
    const { dump, error: refusal } = answer
    const found = dump === undefined ? `its start: ${refusal?.message ?? 'there is no dump'}` : compare(mirror, dump.patches, (id, object) => refs.of(id, object))
    if (found === undefined) return
    const error = new Error(`coheap: the mirror of segment ${segment.id} differs from its engine at ${found}`)
    queueMicrotask(() => { throw error })
    throw error
  }
}
