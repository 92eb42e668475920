/**
 * Rebuilding: how a heap goes on in a fresh instance after its own has trapped.
 *
 * What the instance had told before is kept outside of it (`keeper.ts`), so the fresh one stands where the other stood when
 * its last answer came out: the same cut, documents and handles, the same unacknowledged commits, which are sent again as the
 * bytes they were. Mirrors are not touched. What was in the call that trapped is gone with it: the relay sends its messages
 * again, and a commit of the program is undone.
 *
 * What trapped once may trap again. A segment whose content does so twice is quarantined here, with its last good values, the
 * relay is asked to look at it, and the rest goes on (R12). What traps again and again without anything else having happened ends the connection for good.
 */

import type { Driver } from './driver.js'
import { OP } from './edge.js'
import { HeapError } from './errors.js'
import type { ReplicaInstance } from './instance.js'
import type { Segment } from './residence.js'
import type { Id } from './uuid.js'

/** So many rebuilds in a minute without anything having been committed, applied or acknowledged in between. */
const IDLE_REBUILDS = 3
/** So many in any case. */
const REBUILDS = 20
const MINUTE_MS = 60_000

/** Flags of a slot in operation `resume`. */
const SLOT = { derived: 1, loading: 2, stopped: 4, report: 8 } as const

/** What rebuilding needs of a heap. */
export interface Ruin {
  /** The replica's id as of now. */
  replica(): Id
  readonly driver: Driver
  /** Every segment that has an index, by it. */
  readonly slots: readonly (Segment | undefined)[]
  /** A fresh instance of the module that the replica was in. */
  make(): ReplicaInstance
  /** The segment that was given something from elsewhere when the instance trapped. */
  blamed(): number | undefined
  /** The connection went with the instance. */
  disconnected(): void
  /** The replica is in this instance now, and connects again. */
  standing(instance: ReplicaInstance, error: HeapError): void
  /** A segment that was here as bytes is decoded again. */
  awake(index: number): void
  /** A segment is not to be had any more here. */
  quarantine(segment: Segment): void
  /** The replica is nowhere. */
  fallen(error: HeapError): void
}

/** What a trap interrupted, for people. */
const NAMES: ReadonlyMap<number, string> = new Map(Object.entries(OP).map(([name, op]) => [op, name]))

export class Rebuilds {
  readonly #ruin: Ruin
  /** When each was begun, the newest last; `idle`: nothing has happened since the one before. */
  #begun: { atMs: number; idle: boolean }[] = []
  #idle = false
  /** Segments that a trap was blamed on: when, and how they stood. */
  readonly #suspects = new Map<number, { atMs: number; changes: number }>()
  /** How often each was quarantined here. */
  readonly #quarantines = new Map<number, number>()
  /** How many there were. */
  count = 0
  /** Segments that were quarantined here. */
  quarantined = 0

  constructor(ruin: Ruin) {
    this.#ruin = ruin
  }

  /** Something was committed, applied or acknowledged. */
  progress(): void {
    this.#idle = false
  }

  /** After a trap in operation `op`: makes the replica anew, or says that it cannot be. */
  rebuild(op: number, error: HeapError): void {
    const ruin = this.#ruin
    ruin.disconnected()
    let suspect = op === OP.commit ? undefined : ruin.blamed()
    // What the program did is undone: it is not what another rebuild would meet.
    if (op === OP.commit) this.#idle = false
    let cause = error.cause
    for (;;) {
      if (suspect !== undefined) this.#suspect(suspect)
      suspect = undefined
      if (this.#isTooMuch()) return ruin.fallen(this.#hopeless(error, cause))
      let instance: ReplicaInstance
      try {
        instance = ruin.make()
        this.#resume(instance)
      } catch (thrown) {
        cause = thrown
        continue
      }
      suspect = this.#restore()
      if (suspect !== undefined) continue
      this.count += 1
      return ruin.standing(instance, error)
    }
  }

  /** An engine failed that was working on this segment. The second time in a minute, with the same content, it is quarantined. */
  #suspect(index: number): void {
    const segment = this.#ruin.slots[index]
    if (segment === undefined) return
    const now = { atMs: performance.now(), changes: this.#ruin.driver.keeper.changes(index) }
    const before = this.#suspects.get(index)
    const again = before?.changes === now.changes && now.atMs - before.atMs < MINUTE_MS
    // One that was quarantined has had its second chance.
    if (again || segment.standing === 'quarantined') this.#quarantine(segment)
    else this.#suspects.set(index, now)
  }

  /** The relay was asked about it before, and what it sent then trapped again. */
  #isGivenUp(segment: Segment): boolean {
    return (this.#quarantines.get(segment.index) ?? 0) > 1
  }

  #quarantine(segment: Segment): void {
    this.#quarantines.set(segment.index, (this.#quarantines.get(segment.index) ?? 0) + 1)
    this.#suspects.delete(segment.index)
    this.quarantined += 1
    this.#idle = false
    this.#ruin.driver.keeper.gone(segment.index)
    this.#ruin.quarantine(segment)
  }

  #isTooMuch(): boolean {
    const now = performance.now()
    this.#begun = this.#begun.filter(({ atMs }) => now - atMs < MINUTE_MS)
    if (!this.#idle) for (const each of this.#begun) each.idle = false
    this.#begun.push({ atMs: now, idle: true })
    this.#idle = true
    return this.#begun.length > REBUILDS || this.#begun.filter(({ idle }) => idle).length > IDLE_REBUILDS
  }

  #hopeless(error: HeapError, cause: unknown): HeapError {
    const { during } = error.details
    return new HeapError('ERR_ENGINE', `the engine failed too often, and is not started again: ${error.message}`, { details: { during, rebuilds: this.count }, cause })
  }

  #resume(instance: ReplicaInstance): void {
    const { driver, slots, replica } = this.#ruin
    const { keeper } = driver
    const { error } = driver.goOnIn(instance.replica, w => {
      w.idOf(replica())
      keeper.writePlace(w)
      w.varint(slots.length)
      for (const segment of slots) {
        const loading = segment!.standing === 'loading' && segment!.mirror?.alive !== true && !keeper.has(segment!.index)
        const stopped = segment!.standing !== 'quarantined' ? 0 : this.#isGivenUp(segment!) ? SLOT.stopped : SLOT.stopped | SLOT.report
        w.idOf(segment!.id).u8((segment!.derived ? SLOT.derived : 0) | (loading ? SLOT.loading : 0) | stopped)
      }
      keeper.writeCommits(w)
      driver.writeWaits(w)
    })
    if (error !== undefined) throw error
  }

  /** Makes every segment that was here; gives the index of the first that cannot be. */
  #restore(): number | undefined {
    const { driver, slots } = this.#ruin
    for (const segment of slots) {
      if (segment === undefined || !driver.keeper.has(segment.index)) continue
      try {
        const { error } = driver.call(OP.restore, w => driver.keeper.writeSegment(w.varint(segment.index), segment.index))
        if (error !== undefined) return segment.index
        // What has a mirror is decoded.
        if (segment.mirror !== undefined) this.#ruin.awake(segment.index)
      } catch {
        return segment.index
      }
    }
    return undefined
  }
}

/** What a trap in an operation is told as. */
export function trapError(op: number, cause: unknown): HeapError {
  const during = NAMES.get(op) ?? String(op)
  const text = cause instanceof Error ? cause.message : String(cause)
  const outcome = op === OP.import ? '' : op === OP.commit ? ' and was started again; what was being committed was undone' : ' and was started again'
  return new HeapError('ERR_ENGINE', `the engine failed (${text})${outcome}`, { details: { during }, cause })
}
