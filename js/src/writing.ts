/**
 * Writing: how what a program writes becomes commits.
 *
 * A write opens the batch and goes into mirror and batch at once; the batch is committed at the end of `transact`, else at the
 * end of the microtask turn, and in any case before something from elsewhere is let in. A batch that the replica refuses, or
 * that a throw ends, is undone. Batches that need the full module before it is here are held: they are visible already, and
 * are committed in their order once the replica has moved.
 *
 * ```text
 * write.ts ─► section() … wrote() ─┬─► commit ─► driver ─► wasm ─► committed()
 * transact(fn) ────────────────────┘      └─► held ─► resume() ─► commit …
 * ```
 *
 * It knows segments only as those that a batch touches; `space.ts`, behind `Ground`, keeps them.
 */

import { Batch, type Section } from './batch.js'
import type { Committed, Driver, SegmentPatches } from './driver.js'
import { EDIT, LIMIT, OP, Reader } from './edge.js'
import { HeapError } from './errors.js'
import type { Mirror, Node } from './mirror.js'
import { notingDifferences } from './patches.js'
import type { Segment } from './residence.js'
import { entropy } from './uuid.js'

/** What an edit has beside its values: numbers and a key. */
const EDIT_BYTES_MAX = 64 + LIMIT.keyBytes

/** What writing needs of the space. */
export interface Ground {
  readonly driver: Driver
  /** Set once nothing can be written any more. */
  readonly over: HeapError | undefined
  segmentOfMirror(mirror: Mirror): Segment | undefined
  /** A new segment is not to be. */
  forget(mirror: Mirror): void
  /** A commit of here is visible: by how many bytes each segment has grown, and what came out otherwise than asked for. */
  wroteSegments(label: string, grown: ReadonlyMap<Segment, number>, corrections: readonly SegmentPatches[]): void
  /** Held commits on these are taken back: who watches hears of it. */
  tookBack(mirrors: readonly Mirror[]): void
  /** These hold what the replica holds, after something else was the case: debug runs look. */
  agreed(mirrors: Iterable<Mirror>): void
  /** Asks the replica to show segments anew. */
  showAgain(indexes: Iterable<number>): void
  /** The full module is needed at once; gives whether the replica is in it. */
  needsFullNow(): boolean
  report(error: unknown): void
  statusChanged(): void
}

export class Writing {
  readonly #ground: Ground
  readonly #maxUnsaved: number
  #batch: Batch | undefined
  #committing: Batch | undefined
  readonly #held: Batch[] = []
  #ready: { promise: Promise<void>; resolve: () => void; reject: (error: unknown) => void } | undefined
  /** While held batches are committed: indexes of segments that came out otherwise; `true`: with objects of their own. */
  #stale: Map<number, boolean> | undefined
  #acked = 0
  #unackedSince: { seq: number; atMs: number }[] = []
  /** What the replica has made and not heard of again. */
  #sent = { commits: 0, bytes: 0 }

  constructor(ground: Ground, maxUnsaved: number) {
    this.#ground = ground
    this.#maxUnsaved = maxUnsaved
  }

  /** Commits that are not acknowledged, those that are held among them. */
  get unsaved(): number {
    return this.#sent.commits + this.#held.length
  }

  /** About how many bytes they have. */
  get unsavedBytes(): number {
    return this.#held.reduce((sum, batch) => sum + batch.tally.bytes, this.#sent.bytes)
  }

  get inTransact(): boolean {
    return this.#batch?.transact === true
  }

  /** Something is written that the replica does not know of yet. */
  get isOpen(): boolean {
    return this.#batch !== undefined || this.#held.length > 0
  }

  get holding(): boolean {
    return this.#held.length > 0
  }

  /** For how long the oldest commit has waited to be acknowledged. */
  get unsavedMs(): number {
    const oldest = this.#unackedSince[0] ?? this.#held[0]
    return oldest === undefined ? 0 : Math.max(0, Math.round(performance.now() - oldest.atMs))
  }

  /** Whether a segment has edits that are not acknowledged, or not even committed. */
  isDirty(segment: Segment): boolean {
    return segment.dirtySeq > this.#acked || this.#batch?.sections.has(segment.mirror!) === true
  }

  // The batch

  section(mirror: Mirror): Section {
    if (this.#ground.over !== undefined) throw this.#ground.over
    const segment = this.#ground.segmentOfMirror(mirror)
    if (segment === undefined || !mirror.alive) throw mirror.ended ?? new HeapError('ERR_NOT_LOADED', 'the segment of this object is not loaded any more: reach it again through its Ref')
    const open = this.#batch === undefined || this.#batch.transact ? 0 : this.#batch.tally.bytes
    if (this.unsavedBytes + open >= this.#maxUnsaved) {
      this.commitPending()
      throw this.#tooMuchUnsaved()
    }
    return this.#open().section(mirror, () => segment)
  }

  /** The section that the open batch has for a segment. */
  openSection(mirror: Mirror): Section | undefined {
    return this.#batch?.sections.get(mirror)
  }

  wrote(): void {
    const batch = this.#batch
    if (batch === undefined || batch.transact) return
    if (batch.tally.count >= LIMIT.editsPerCommit || batch.tally.bytes > LIMIT.commitBytes / 4) this.commitPending()
  }

  hasRoom(bytes: number): boolean {
    const batch = this.#batch
    if (batch === undefined || batch.transact) return true
    if (bytes > LIMIT.commitBytes) throw tooLarge(bytes)
    return batch.tally.count === 0 || batch.tally.bytes + bytes + EDIT_BYTES_MAX <= LIMIT.commitBytes
  }

  /** Throws if so many bytes, which take several commits, cannot be waiting for the relay. */
  mayWrite(bytes: number): void {
    if (bytes > this.#maxUnsaved) throw new HeapError('ERR_TOO_LARGE', `a write of about ${bytes} bytes, of which ${this.#maxUnsaved} may wait for the relay; write it in parts, and await heap.flush() between`, { details: { bytes, max: this.#maxUnsaved } })
    if (this.unsavedBytes + bytes > this.#maxUnsaved) throw this.#tooMuchUnsaved()
  }

  #tooMuchUnsaved(): HeapError {
    return new HeapError('ERR_UNSAVED_LIMIT', `${this.unsavedBytes} bytes of edits wait for the relay; await heap.flush() before writing on`, { details: { unsaved: this.unsaved, bytes: this.unsavedBytes } })
  }

  /** A write to a new segment did not come about. */
  drop(mirror: Mirror): void {
    this.#batch?.sections.delete(mirror)
  }

  #open(): Batch {
    if (this.#batch === undefined) {
      const batch = (this.#batch = new Batch(false))
      queueMicrotask(() => {
        if (this.#batch === batch) this.commitPendingReporting()
      })
    }
    return this.#batch
  }

  // Commits

  /** Commits what was written outside `transact`; throws what wasm refuses, undone. */
  commitPending(): void {
    if (this.#batch === undefined || this.#batch.transact) return
    this.#commit()
  }

  commitPendingReporting(): void {
    try {
      this.commitPending()
    } catch (error) {
      this.#ground.report(error)
    }
  }

  transact<R>(fn: () => R, label = ''): R {
    if (this.inTransact) return this.#within(fn)
    if (this.#ground.over !== undefined) throw this.#ground.over
    if (new TextEncoder().encode(label).length > LIMIT.labelBytes) throw new HeapError('ERR_TOO_LARGE', `a label may have ${LIMIT.labelBytes} bytes`)
    this.commitPending()
    const batch = (this.#batch = new Batch(true, label))
    let result: R
    try {
      result = refuseThenable(fn())
    } catch (error) {
      this.#batch = undefined
      this.#undo(batch)
      throw error
    }
    this.#commit()
    return result
  }

  /** A transaction within another is part of it; what it throws undoes its own writes and no others. */
  #within<R>(fn: () => R): R {
    const batch = this.#batch!
    const before = batch.savepoint()
    try {
      return refuseThenable(fn())
    } catch (error) {
      for (const mirror of batch.rollbackTo(before)) this.#ground.forget(mirror)
      throw error
    }
  }

  #undo(batch: Batch): void {
    batch.rollback()
    for (const [mirror, section] of batch.sections) {
      if (mirror.log !== undefined) mirror.log = []
      if (section.creates) this.#ground.forget(mirror)
    }
    this.#ground.agreed(batch.sections.keys())
  }

  #commit(): void {
    const batch = this.#batch!
    if (batch.tally.count === 0) {
      batch.settle()
      this.#batch = undefined
      return
    }
    if (batch.tally.bytes > LIMIT.commitBytes) {
      this.#batch = undefined
      this.#undo(batch)
      throw tooLarge(batch.tally.bytes)
    }
    if (this.holding || (batch.makesHistory && !this.#isInFull(batch))) return this.#hold(batch)
    const { error, stands } = this.#cross(batch)
    this.#batch = undefined
    if (stands) batch.settle()
    else this.#undo(batch)
    if (error !== undefined) throw error
  }

  #isInFull(batch: Batch): boolean {
    try {
      return this.#ground.needsFullNow()
    } catch (error) {
      this.#batch = undefined
      this.#undo(batch)
      throw error
    }
  }

  /** Hands a batch to the replica. `error` may come although it `stands`. */
  #cross(batch: Batch): { error: unknown; stands: boolean } {
    this.#committing = batch
    let error: unknown
    try {
      error = this.#ground.driver.call(OP.commit, w => batch.encode(w.raw(entropy(8)))).error
    } catch (thrown) {
      error = thrown
    }
    const stands = this.#committing === undefined
    this.#committing = undefined
    return { error, stands }
  }

  /** Record `Committed`: the batch stands. */
  committed(record: Committed): void {
    const batch = this.#committing
    this.#sent = { commits: record.unsaved, bytes: record.unsavedBytes }
    if (record.seq > this.#acked) this.#unackedSince.push({ seq: record.seq, atMs: batch?.atMs ?? performance.now() })
    if (batch === undefined) return
    this.#committing = undefined
    if (this.#batch === batch) this.#batch = undefined
    batch.settle()
    for (const { claim } of batch.sections.values()) if (claim !== undefined) claim.seq = record.seq
    const grown = this.#grown(batch)
    for (const segment of grown.keys()) segment.dirtySeq = record.seq
    if (this.#stale === undefined) this.#ground.wroteSegments(batch.label, grown, record.parts)
    else for (const { segment, patches } of record.parts) this.#stale.set(segment, this.#stale.get(segment) === true || !isTotals(patches))
    this.#ground.statusChanged()
  }

  #grown(batch: Batch): Map<Segment, number> {
    const grown = new Map<Segment, number>()
    for (const { mirror, count, bytes } of batch.sections.values()) {
      const segment = this.#ground.segmentOfMirror(mirror)
      if (count > 0 && segment !== undefined) grown.set(segment, bytes)
    }
    return grown
  }

  /** Record `Acked`: commits up to this one are durable. */
  acked(seq: number, unsaved: number, unsavedBytes: number): void {
    this.#acked = Math.max(this.#acked, seq)
    while (this.#unackedSince.length > 0 && this.#unackedSince[0]!.seq <= seq) this.#unackedSince.shift()
    this.#sent = { commits: unsaved, bytes: unsavedBytes }
    this.#ground.statusChanged()
  }

  /** Record `Refused`: that commit waits no longer. How many bytes are left is told with the next answer. */
  refused(seq: number): void {
    const left = Math.max(0, this.#sent.commits - 1)
    this.acked(seq, left, left === 0 ? 0 : this.#sent.bytes)
  }

  // Held commits

  /** Settles when no commit is held any more; `undefined` if none is. */
  get ready(): Promise<void> | undefined {
    return this.#ready?.promise
  }

  #hold(batch: Batch): void {
    this.#batch = undefined
    batch.settle()
    this.#held.push(batch)
    if (this.#ready === undefined) {
      let resolve!: () => void
      let reject!: (error: unknown) => void
      const promise = new Promise<void>((yes, no) => { resolve = yes; reject = no })
      promise.catch(() => {})
      this.#ready = { promise, resolve, reject }
    }
    this.#ground.wroteSegments(batch.label, this.#grown(batch), [])
    this.#ground.statusChanged()
  }

  /** The replica is in the full module: what was held is committed, in its order. */
  resume(): void {
    if (this.#held.length === 0) return
    const all = [...this.#held]
    this.#stale = new Map()
    let failure: unknown
    while (this.#held.length > 0) {
      const { error, stands } = this.#cross(this.#held[0]!)
      failure ??= error
      if (!stands) break
      this.#held.shift()
      if (!this.#namesOthers()) continue
      failure ??= new HeapError('ERR_CONFLICT', 'what was written while the module for history was loading met other content and was undone; write it again')
      break
    }
    const undone = this.#held.length > 0
    this.#undoHeld()
    // What came out otherwise cannot be patched into mirrors that hold later writes.
    const stale = this.#stale
    this.#stale = undefined
    this.#ground.showAgain(stale.keys())
    for (const batch of all) this.#ground.agreed(batch.sections.keys())
    this.#settle(undone ? failure : undefined)
    if (failure !== undefined) this.#ground.report(failure)
    this.#ground.statusChanged()
  }

  /** Whether held batches speak of segments in which objects have come in between: they name their own by numbers that are taken. */
  #namesOthers(): boolean {
    const stale = this.#stale!
    return stale.size > 0 && this.#held.some(batch => [...this.#grown(batch).keys()].some(segment => stale.get(segment.index) === true))
  }

  /** Takes back what is held, the newest first: what came later may build on what came before. */
  #undoHeld(): void {
    const batches = [...this.#held].reverse()
    if (batches.length === 0) return
    const mirrors = [...new Set(batches.flatMap(batch => [...batch.sections.keys()]))]
    notingDifferences(mirrors, () => { for (const batch of batches) this.#undo(batch) })
    this.#held.length = 0
    this.#ground.tookBack(mirrors)
  }

  /** The full module is not to be had: what was held is undone. */
  giveUp(error: HeapError): void {
    if (this.#held.length === 0) return
    this.commitPendingReporting()
    this.#undoHeld()
    this.#settle(error)
    this.#ground.statusChanged()
  }

  /** There will be no connection, or nothing at all, any more: who waits until nothing is held waits no longer. */
  failWaits(error: HeapError): void {
    this.#settle(error)
  }

  /** Whether an object was made by a commit that is held: the replica does not know of it. */
  isHeld(node: Node): boolean {
    const first = this.#held.find(batch => batch.sections.has(node.mirror))?.sections.get(node.mirror)
    return first !== undefined && node.handle >= first.handles
  }

  #settle(error: unknown): void {
    const ready = this.#ready
    this.#ready = undefined
    if (error === undefined) ready?.resolve()
    else ready?.reject(error)
  }
}

/** Whether patches are about counters' totals only, which every later count tells anew. */
function isTotals(patches: Uint8Array): boolean {
  const r = new Reader(patches)
  while (r.left > 0) {
    if (r.u8() !== EDIT.add) return false
    r.varint()
    r.f64()
  }
  return true
}

function tooLarge(bytes: number): HeapError {
  return new HeapError('ERR_TOO_LARGE', `a commit of about ${bytes} bytes; one may have ${LIMIT.commitBytes}`, { details: { bytes, max: LIMIT.commitBytes } })
}

/** Throws for what a synchronous function must not return. */
export function refuseThenable<R>(result: R): R {
  const then: unknown = (typeof result === 'object' && result !== null) || typeof result === 'function' ? (result as { then?: unknown }).then : undefined
  if (typeof then !== 'function') return result
  void (result as unknown as Promise<unknown>).then(undefined, () => {})
  throw new TypeError('transact takes a synchronous function: what it would await could change meanwhile; await first, then transact (all of it was undone)')
}
