/**
 * The budget of one heap, kept: what goes when there is too much, when that is tried again, and when it is told.
 *
 * The least recently used segments are packed first, into as much as half of what is here, and then go (`residence.ts` says which
 * never do). What stays over the budget is tried again: much of it is held only until the collector has been. What stays for long
 * is told once, and then loads fail until it is better (S24).
 */

import { canCollect, collectGarbage } from './collect.js'
import { HeapError } from './errors.js'
import { unrefTimer } from './link.js'
import type { Resident, Segment, SharedBudget } from './residence.js'

/** For how long a heap may be over its budget before that is an error. */
const OVER_MS = 5000
const RETRY_MS = 250
/** Far over the budget. */
const RETRY_MS_FAR = 20
/** No sooner again than this where something has changed meanwhile. */
const AGAIN_MS = 1
/** Bytes alone may be this much of what is here before the oldest of them go. */
const PACKED_SHARE = 0.5

/** The heap whose budget it is. */
export interface Household {
  readonly residentBytes: number
  /** The segments that are here. */
  readonly resident: Iterable<Segment>
  /** Nothing may go just now. */
  readonly busy: boolean
  /** Whether it has edits that are not acknowledged, or not even committed. */
  isDirty(segment: Segment): boolean
  /** Asks the replica to keep a segment as bytes alone; that is how it stands if it did. */
  pack(segment: Segment, mirrored: boolean): void
  /** Asks the replica to let a segment go; that is how it stands if it did. */
  evict(segment: Segment): void
  report(error: unknown): void
  evicted(segments: readonly Segment[]): void
}

export class Enforcer implements Resident {
  readonly #house: Household
  readonly #budget: SharedBudget
  #timer: ReturnType<typeof setTimeout> | undefined
  #isSoon = false
  #triedMs = -AGAIN_MS
  #overSince: number | undefined
  #told = false
  #ended = false

  constructor(house: Household, budget: SharedBudget) {
    this.#house = house
    this.#budget = budget
    budget.join(this)
  }

  get residentBytes(): number {
    return this.#house.residentBytes
  }

  /** Looks after the budget in a task of its own, if it has to be. */
  soon(): void {
    if (this.#budget.used <= this.#budget.bytes) return
    if (this.#isSoon && this.#timer !== undefined) return
    clearTimeout(this.#timer)
    // What was to be tried again later may go now; but not over and over.
    this.#isSoon = true
    this.#in(Math.max(0, this.#triedMs + AGAIN_MS - performance.now()))
  }

  /** A task and not a microtask: who waited for a load gets its object, and so holds it, before. */
  #in(delayMs: number): void {
    this.#timer = setTimeout(() => {
      this.#timer = undefined
      if (this.#ended) return
      // Before any weak reference is read: those that were stay until the job ends.
      const collected = this.#overSince !== undefined && collectGarbage(() => performance.now())
      this.#enforce(collected)
    }, delayMs)
    unrefTimer(this.#timer)
  }

  #enforce(collected = false): boolean {
    this.#triedMs = performance.now()
    const left = this.#budget.enforce(this)
    if (left === 0) {
      this.#overSince = undefined
      this.#told = false
      return true
    }
    this.#overSince ??= performance.now()
    const long = performance.now() - this.#overSince > OVER_MS
    if (!this.#told && long && (collected || !canCollect())) {
      this.#told = true
      this.#house.report(this.#error())
    }
    if (this.#timer !== undefined) return false
    this.#isSoon = false
    this.#in(left > this.#budget.bytes / 8 ? RETRY_MS_FAR : RETRY_MS)
    return false
  }

  /** Why nothing more may be loaded, if so. */
  refusal(): HeapError | undefined {
    return this.#told && !this.#enforce() ? this.#error() : undefined
  }

  #error(): HeapError {
    const budget = this.#budget.bytes
    return new HeapError('ERR_OVER_BUDGET', `what is held, pinned and unsaved takes more than the budget of ${budget} bytes`, { details: { budget, residentBytes: this.residentBytes, ...this.held() } })
  }

  release(bytes: number): number {
    const house = this.#house
    if (this.#ended || house.busy) return 0
    const mayGo = [...house.resident].filter(segment => !segment.isNeeded && !house.isDirty(segment)).sort((a, b) => a.used - b.used)
    const packed = mayGo.filter(segment => segment.standing === 'packed')
    const shown = mayGo.filter(segment => segment.standing === 'here')
    const left = house.residentBytes - bytes
    let packedBytes = packed.reduce((sum, segment) => sum + segment.counted, 0)
    let released = 0
    let [nextPacked, nextShown] = [0, 0]
    const gone: Segment[] = []
    while (released < bytes) {
      const fromPacked = nextShown === shown.length || (nextPacked < packed.length && packedBytes > left * PACKED_SHARE)
      const segment = fromPacked ? packed[nextPacked++] : shown[nextShown++]
      if (segment === undefined) break
      const before = segment.counted
      // Nothing is packed first where all of it goes.
      if (!fromPacked && left > 0) {
        house.pack(segment, false)
        if (segment.mirror !== undefined) continue
        packed.push(segment)
        packedBytes += segment.counted
      } else {
        house.evict(segment)
        if (segment.counted > 0) continue
        if (fromPacked) packedBytes -= before
        gone.push(segment)
      }
      released += before - segment.counted
    }
    if (gone.length > 0) house.evicted(gone)
    return released
  }

  /** Bytes by why they are here. */
  held(): { held: number; pinned: number; unsaved: number } {
    let held = 0
    let pinned = 0
    let unsaved = 0
    for (const segment of this.#house.resident) {
      if (segment.pins > 0 || segment.index === 0) pinned += segment.residentBytes
      else if (this.#house.isDirty(segment)) unsaved += segment.residentBytes
      else if (segment.isHeld) held += segment.residentBytes
    }
    return { held, pinned, unsaved }
  }

  end(): void {
    this.#ended = true
    clearTimeout(this.#timer)
    this.#budget.leave(this)
  }
}
