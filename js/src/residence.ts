/**
 * Residence: which segments are here, what they cost, and which may go.
 *
 * A segment is counted with a multiple of its encoded size, an estimate: of its engine's document, of its mirror, and of the bytes
 * that are kept of it. Over the budget the least recently used are packed, then go, but never the root, what is pinned or watched,
 * what has unacknowledged edits, or what a program may still hold a live object of. A budget may be shared by several heaps: each
 * lets go of its own first, then asks the others.
 */

import type { MapNode, Mirror, Node } from './mirror.js'
import type { Mark } from './patches.js'
import type { Budget } from './types.js'
import type { Id } from './uuid.js'

/** Resident bytes per encoded byte of one that is decoded: what yrs and the mirror take together, measured on small records. */
const LIVE_FACTOR = 8
/** The same with the document at rest: its mirror, the names of its objects, and the bytes, here and outside of the instance. */
const REST_FACTOR = 5
/** Without a mirror: the bytes alone. */
const PACKED_FACTOR = 2
/** What an empty segment costs. */
const SEGMENT_BYTES_MIN = 512
export const BUDGET_BYTES_DEFAULT = 256 * 1024 * 1024

/** Where a segment stands. `here`: its mirror is current. `packed`: here as bytes. The last four come from the relay. */
export type Standing = 'away' | 'loading' | 'here' | 'packed' | 'missing' | 'deleted' | 'quarantined' | 'forbidden'

export interface LoadWaiter { resolve(): void; reject(error: unknown): void }

/** One segment as this heap knows it. */
export class Segment {
  index = -1
  standing: Standing = 'away'
  mirror: Mirror | undefined = undefined
  /** Its document is bytes, though it has a mirror. */
  atRest = false
  /** Encoded size. */
  bytes = 0
  /** What it is counted with. */
  counted = 0
  /** A clock that moves when any is read or written: when this one was, and how that was when it was looked at for being idle. */
  used = 0
  usedBefore = 0
  /** When something last came to its document. */
  changedMs = 0
  pins = 0
  watchers = 0
  /** Watched expressions that have read it. */
  readers = 0
  /** The newest commit of this replica that touched it. */
  dirtySeq = 0
  /** A missing one is an empty map. */
  derived = false
  /** Only the full module can read it. */
  history = false
  waiters: LoadWaiter[] = []
  marks: Mark[] = []
  /** Nodes found by id. */
  readonly objects = new Map<Id, Node>()
  /** Partitions that a program may hold. */
  holders: WeakRef<object>[] = []

  constructor(readonly id: Id) {}

  get residentBytes(): number {
    if (this.mirror === undefined && this.standing !== 'packed') return 0
    return SEGMENT_BYTES_MIN + this.bytes * (this.mirror === undefined ? PACKED_FACTOR : this.atRest ? REST_FACTOR : LIVE_FACTOR)
  }

  /** Whether it is to keep its mirror, and so to stay. */
  get isNeeded(): boolean {
    return this.index <= 0 || this.pins > 0 || this.watchers > 0 || this.readers > 0 || this.isHeld
  }

  /** Whether a program holds something of it. */
  get isHeld(): boolean {
    if (this.mirror?.isHeld === true) return true
    this.holders = this.holders.filter(holder => holder.deref() !== undefined)
    return this.holders.length > 0
  }

  get rootMap(): MapNode | undefined {
    return this.mirror?.root as MapNode | undefined
  }
}

/** What shares a budget. */
export interface Resident {
  readonly residentBytes: number
  /** Lets go of about this many bytes; gives how many it could. */
  release(bytes: number): number
}

/** A number of bytes and who lives on it. */
export class SharedBudget implements Budget {
  readonly #residents = new Set<Resident>()

  constructor(readonly bytes: number) {}

  join(resident: Resident): void {
    this.#residents.add(resident)
  }

  leave(resident: Resident): void {
    this.#residents.delete(resident)
  }

  get used(): number {
    let used = 0
    for (const resident of this.#residents) used += resident.residentBytes
    return used
  }

  /** Brings the use under the budget, beginning with the one that asks. Gives what is left over it. */
  enforce(first: Resident): number {
    let over = this.used - this.bytes
    if (over <= 0) return 0
    over -= first.release(over)
    for (const resident of this.#residents) {
      if (over <= 0) break
      if (resident !== first) over -= resident.release(over)
    }
    return Math.max(0, over)
  }
}

/** A budget to give to several `open` calls. */
export function createBudget(bytes: string | number): Budget {
  return new SharedBudget(parseBytes(bytes))
}

/** Bytes of a number or of `'64mb'`. */
export function parseBytes(value: string | number): number {
  if (typeof value === 'number') {
    if (Number.isFinite(value) && value > 0) return value
    throw new RangeError(`a budget is a positive number of bytes, not ${value}`)
  }
  const match = /^\s*(\d+(?:\.\d+)?)\s*(b|kb|mb|gb)?\s*$/i.exec(String(value))
  if (match === null) throw new TypeError(`a budget looks like '64mb', not ${JSON.stringify(value)}`)
  const unit = { b: 1, kb: 1024, mb: 1024 ** 2, gb: 1024 ** 3 }[(match[2] ?? 'b').toLowerCase()]!
  return parseBytes(Number(match[1]) * unit)
}

export function budgetOf(budget: number | string | Budget | undefined): SharedBudget {
  if (budget instanceof SharedBudget) return budget
  if (typeof budget === 'object') throw new TypeError('budget: a number, a string such as \'64mb\', or what createBudget() returned')
  return new SharedBudget(budget === undefined ? BUDGET_BYTES_DEFAULT : parseBytes(budget))
}
