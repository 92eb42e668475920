/**
 * The budget of one heap, kept: what goes when there is too much, when that is tried again, and when it is told.
 *
 * The least recently used segments go first (`residence.ts` says which never do). What stays over the budget is tried again:
 * much of it is held only until the collector has been. What stays for long is told once, and then loads fail until it is
 * better (S24).
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

/** The heap whose budget it is. */
export interface Household {
  readonly residentBytes: number
  /** The segments that are here. */
  readonly resident: Iterable<Segment>
  /** Nothing may go just now. */
  readonly busy: boolean
  /** Whether it has edits that are not acknowledged, or not even committed. */
  isDirty(segment: Segment): boolean
  /** Asks the replica to let a segment go; it has no mirror any more if it did. */
  evict(segment: Segment): void
  report(error: unknown): void
  evicted(segments: readonly Segment[]): void
}

export class Enforcer implements Resident {
  readonly #house: Household
  readonly #budget: SharedBudget
  #timer: ReturnType<typeof setTimeout> | undefined
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
    if (this.#timer === undefined && this.#budget.used > this.#budget.bytes) this.#in(0)
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
    if (this.#timer === undefined) this.#in(left > this.#budget.bytes / 8 ? RETRY_MS_FAR : RETRY_MS)
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
    const candidates = [...house.resident].sort((a, b) => a.used - b.used)
    const gone: Segment[] = []
    let released = 0
    for (const segment of candidates) {
      if (released >= bytes) break
      if (segment.index <= 0 || segment.standing !== 'here' || segment.pins > 0 || segment.watchers > 0 || house.isDirty(segment) || segment.isHeld) continue
      const size = segment.residentBytes
      house.evict(segment)
      if (segment.mirror !== undefined) continue
      released += size
      gone.push(segment)
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
