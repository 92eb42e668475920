/**
 * The space: the segments of one heap, the open batch, and how commits of here and elsewhere become visible.
 *
 * `heap.ts` is the face; this is what stands behind it. A program's write opens the batch and goes into mirror and batch at
 * once; the batch is committed at the end of `transact`, else at the end of the microtask turn, and in any case before
 * something from elsewhere is let in. Nothing here waits, but for loads.
 *
 * ```text
 * write.ts ─► section() … wrote() ─► commit ─► driver ─► wasm
 *                                      └─► visible() ─► watch.ts (in a microtask)
 * wasm ─► applied / loaded / refused ─► patches.ts ─► mirrors ─► visible()
 * ```
 */

import { Batch, type Grant, type Section } from './batch.js'
import type { Applied, Committed, Driver, Loaded, SegmentPatches } from './driver.js'
import { LIMIT, KIND, OP } from './edge.js'
import { HeapError } from './errors.js'
import { Intake } from './input.js'
import { isAttached, Mirror, type Logged, type MapNode, type Node, type Stored } from './mirror.js'
import { applyPatches, compare, resetMirror } from './patches.js'
import { unrefTimer } from './link.js'
import { liveOf, present } from './proxy.js'
import { HeapRef, RefTable, type RefHome } from './refs.js'
import { canCollect, collectGarbage } from './collect.js'
import { Segment, type Resident, type SharedBudget, type Standing } from './residence.js'
import { nodeOf } from './symbols.js'
import { decodeId, encodeId, freshId, type Id } from './uuid.js'
import { waiting } from './wait.js'
import { setHost, type WriteHost } from './write.js'
import type { Author, Wait } from './types.js'

/** The well-known first segment of every heap (`core/src/id.rs`). */
export const ROOT_ID: Id = encodeId(new TextEncoder().encode('coheap root seg.'))

/** One commit that became visible, of here or of elsewhere. */
export interface VisibleCommit {
  readonly origin: 'local' | 'remote'
  readonly by: Author
  readonly label: string
  readonly touched: ReadonlySet<Segment>
  readonly logs: ReadonlyMap<Mirror, readonly Logged[]>
}

/** What the space tells its heap. */
export interface SpaceEvents {
  visible(commit: VisibleCommit): void
  report(error: unknown): void
  statusChanged(): void
  loaded(segment: Segment): void
  evicted(segments: readonly Segment[]): void
  quarantined(segment: Segment): void
}

export interface SpaceOptions {
  readonly heapName: string
  readonly me: Author
  readonly budget: SharedBudget
  readonly maxUnsaved: number
}

/** For how long a heap may be over its budget before that is an error. */
const OVER_MS = 5000
const RETRY_MS = 250
/** Far over the budget. */
const RETRY_MS_FAR = 20

const debug = (globalThis as { process?: { env?: Record<string, string | undefined> } }).process?.env?.['COHEAP_DEBUG'] !== undefined

export class Space implements RefHome, WriteHost, Resident {
  driver!: Driver
  readonly refs: RefTable = new RefTable(this)
  readonly #segments = new Map<Id, Segment>()
  readonly #byIndex: (Segment | undefined)[] = []
  readonly #byMirror = new Map<Mirror, Segment>()
  #batch: Batch | undefined
  #committing: Batch | undefined
  #clock = 0
  #enforcing: ReturnType<typeof setTimeout> | undefined
  #overSince: number | undefined
  #overTold = false
  /** Set once nothing can be written or loaded any more. */
  over: HeapError | undefined = undefined
  unsaved = 0
  unsavedBytes = 0
  #acked = 0
  #unackedSince: { seq: number; atMs: number }[] = []
  residentBytes = 0
  loads = 0
  evictions = 0

  constructor(readonly options: SpaceOptions, readonly events: SpaceEvents) {
    this.segment(ROOT_ID).index = 0
    this.#byIndex[0] = this.segment(ROOT_ID)
    this.segment(ROOT_ID).derived = true
    options.budget.join(this)
  }

  get heapName(): string {
    return this.options.heapName
  }

  get inTransact(): boolean {
    return this.#batch?.transact === true
  }

  get unsavedMs(): number {
    const oldest = this.#unackedSince[0]
    return oldest === undefined ? 0 : Math.max(0, Math.round(performance.now() - oldest.atMs))
  }

  get segments(): Iterable<Segment> {
    return this.#segments.values()
  }

  get residentCount(): number {
    return this.#byMirror.size
  }

  segment(id: Id): Segment {
    let segment = this.#segments.get(id)
    if (segment === undefined) this.#segments.set(id, (segment = new Segment(id)))
    return segment
  }

  segmentOf(node: Node): Segment | undefined {
    return this.#byMirror.get(node.mirror)
  }

  touch(segment: Segment): void {
    segment.used = ++this.#clock
  }

  // Writing

  section(mirror: Mirror): Section {
    if (this.over !== undefined) throw this.over
    const segment = this.#byMirror.get(mirror)
    if (segment === undefined) throw new HeapError('ERR_NOT_LOADED', 'the segment of this object is not loaded any more: reach it again through its Ref')
    const open = this.#batch === undefined || this.#batch.transact ? 0 : this.#batch.tally.bytes
    if (this.unsavedBytes + open >= this.options.maxUnsaved) {
      this.commitPending()
      throw new HeapError('ERR_UNSAVED_LIMIT', `${this.unsavedBytes} bytes of edits wait for the relay; await heap.flush() before writing on`, { details: { unsaved: this.unsaved, bytes: this.unsavedBytes } })
    }
    return this.#open().section(mirror, () => segment)
  }

  wrote(): void {
    const batch = this.#batch
    if (batch === undefined || batch.transact) return
    if (batch.tally.count >= LIMIT.editsPerCommit || batch.tally.bytes > LIMIT.commitBytes / 4) this.commitPending()
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

  /** Commits what was written outside `transact`; throws what wasm refuses, undone. */
  commitPending(): void {
    if (this.#batch === undefined || this.#batch.transact) return
    this.#commit()
  }

  commitPendingReporting(): void {
    try {
      this.commitPending()
    } catch (error) {
      this.events.report(error)
    }
  }

  transact<R>(fn: () => R, label = ''): R {
    if (this.inTransact) return refuseThenable(fn())
    if (this.over !== undefined) throw this.over
    if (new TextEncoder().encode(label).length > LIMIT.labelBytes) throw new HeapError('ERR_TOO_LARGE', `a label may have ${LIMIT.labelBytes} bytes`)
    this.commitPending()
    this.#batch = new Batch(true, label)
    let result: R
    try {
      result = refuseThenable(fn())
    } catch (error) {
      this.#abandon()
      throw error
    }
    this.#commit()
    return result
  }

  #abandon(): void {
    const batch = this.#batch!
    this.#batch = undefined
    batch.rollback()
    for (const mirror of batch.sections.keys()) {
      if (mirror.log !== undefined) mirror.log = []
      this.#forgetIfNew(mirror)
    }
  }

  #commit(): void {
    const batch = this.#batch!
    if (batch.tally.count === 0) {
      batch.settle()
      this.#batch = undefined
      return
    }
    if (batch.tally.bytes > LIMIT.commitBytes) {
      this.#abandon()
      throw new HeapError('ERR_TOO_LARGE', `a commit of about ${batch.tally.bytes} bytes; one may have ${LIMIT.commitBytes}`, { details: { bytes: batch.tally.bytes, max: LIMIT.commitBytes } })
    }
    this.#committing = batch
    let error: unknown
    try {
      error = this.driver.call(OP.commit, w => batch.encode(w)).error
    } catch (thrown) {
      error = thrown
    }
    const stands = this.#committing === undefined
    this.#committing = undefined
    if (error !== undefined && !stands) this.#abandon()
    this.#batch = undefined
    batch.settle()
    if (error !== undefined) throw error
  }

  /** Record `Committed`: the batch stands. */
  committed(record: Committed): void {
    const batch = this.#committing
    this.unsaved = record.unsaved
    this.unsavedBytes = record.unsavedBytes
    if (record.seq > this.#acked) this.#unackedSince.push({ seq: record.seq, atMs: performance.now() })
    if (batch === undefined) return
    this.#committing = undefined
    batch.settle()
    const touched = new Set<Segment>()
    for (const section of batch.sections.values()) {
      if (section.count === 0) continue
      const segment = this.#byMirror.get(section.mirror)!
      segment.dirtySeq = record.seq
      if (section.claim !== undefined) section.claim.seq = record.seq
      this.#resize(segment, segment.bytes + section.bytes)
      this.touch(segment)
      touched.add(segment)
    }
    this.#applyParts(record.parts, touched)
    this.#show('local', this.options.me, batch.label, touched)
    this.events.statusChanged()
    this.#enforceSoon()
  }

  acked(seq: number, unsaved: number, unsavedBytes: number): void {
    this.#acked = Math.max(this.#acked, seq)
    while (this.#unackedSince.length > 0 && this.#unackedSince[0]!.seq <= seq) this.#unackedSince.shift()
    this.unsaved = unsaved
    this.unsavedBytes = unsavedBytes
    this.events.statusChanged()
    this.#enforceSoon()
  }

  // New segments

  /** Makes a segment whose first object is `value`. */
  alloc(value: object): HeapRef {
    if (this.over !== undefined) throw this.over
    const container = typeof value === 'object' && value !== null && !(value instanceof Date) && !(value instanceof Uint8Array) && !(value instanceof HeapRef)
    if (!container) throw new TypeError('heap.alloc takes an object, an array, counter(), text() or set()')
    const id = encodeId(freshId())
    const segment = this.segment(id)
    const mirror = this.#give(segment)
    const section = this.section(mirror)
    const intake = new Intake(mirror, this, section.values, [])
    try {
      intake.value(value)
    } catch (error) {
      intake.drop()
      this.#batch!.sections.delete(mirror)
      this.#forgetIfNew(mirror)
      throw error
    }
    section.root(intake.finish(mirror.undo))
    segment.standing = 'here'
    this.wrote()
    return this.refs.of(id)
  }

  #give(segment: Segment): Mirror {
    const mirror = new Mirror()
    setHost(mirror, this)
    segment.mirror = mirror
    segment.objects.clear()
    this.#byMirror.set(mirror, segment)
    if (segment.watchers > 0) mirror.log = []
    this.touch(segment)
    return mirror
  }

  #forgetIfNew(mirror: Mirror): void {
    const segment = this.#byMirror.get(mirror)
    if (segment === undefined || segment.index >= 0) return
    mirror.alive = false
    this.#byMirror.delete(mirror)
    this.#segments.delete(segment.id)
  }

  // From elsewhere

  /** Record `Apply`. */
  applied(commit: Applied): void {
    const touched = new Set<Segment>()
    this.#applyParts(commit.parts, touched)
    this.#show('remote', commit.author, commit.label, touched)
  }

  #applyParts(parts: readonly SegmentPatches[], touched: Set<Segment>): void {
    for (const { segment: index, patches } of parts) {
      const segment = this.#byIndex[index]
      if (segment?.mirror === undefined) continue
      const marks = applyPatches(segment.mirror, patches, (id, object) => this.refs.of(id, object))
      segment.marks.push(...marks)
      this.#resize(segment, segment.bytes + patches.length)
      touched.add(segment)
    }
  }

  #show(origin: 'local' | 'remote', by: Author, label: string, touched: ReadonlySet<Segment>): void {
    const logs = new Map<Mirror, readonly Logged[]>()
    for (const { mirror } of touched) {
      if (mirror?.log === undefined) continue
      logs.set(mirror, mirror.log)
      mirror.log = []
    }
    if (debug) for (const segment of touched) this.compareWithEngine(segment)
    this.events.visible({ origin, by, label, touched, logs })
  }

  /** Throws if a mirror differs from what the engine holds. */
  compareWithEngine(segment: Segment): void {
    if (segment.mirror === undefined || segment.index < 0) return
    const { dump } = this.driver.call(OP.dump, w => w.varint(segment.index))
    const found = dump === undefined ? undefined : compare(segment.mirror, dump.patches, (id, object) => this.refs.of(id, object))
    if (found !== undefined) throw new Error(`coheap: the mirror of segment ${segment.id} differs from its engine at ${found}`)
  }

  /** Record `Index`. */
  index(id: Id, index: number): void {
    const segment = this.segment(id)
    segment.index = index
    this.#byIndex[index] = segment
  }

  /** Record `Loaded`. */
  loaded(record: Loaded): void {
    const segment = this.#byIndex[record.segment]
    if (segment === undefined) return
    const standing = (['here', segment.derived ? 'here' : 'missing', 'deleted', 'quarantined', 'forbidden'] as Standing[])[record.status] ?? 'forbidden'
    if (standing === 'here') this.#loadedHere(segment, record)
    else {
      if (segment.mirror !== undefined) this.#drop(segment)
      segment.standing = standing
      if (standing === 'quarantined') this.events.quarantined(segment)
    }
    const waiters = segment.waiters
    segment.waiters = []
    for (const waiter of waiters) {
      if (standing === 'here') waiter.resolve()
      else waiter.reject(this.#standingError(segment))
    }
  }

  #loadedHere(segment: Segment, record: Loaded): void {
    const makeRef = (id: Id, object: Id): HeapRef => this.refs.of(id, object)
    const fresh = segment.mirror === undefined
    const mirror = segment.mirror ?? this.#give(segment)
    segment.marks = fresh || !record.reset ? applyPatches(mirror, record.patches, makeRef) : resetMirror(mirror, record.patches, makeRef)
    if (mirror.root === undefined) mirror.create(KIND.map, 0)
    segment.standing = 'here'
    this.#resize(segment, record.bytes)
    this.loads += 1
    this.events.loaded(segment)
    if (!fresh) this.#show('remote', { replica: '' }, '', new Set([segment]))
    else if (debug) this.compareWithEngine(segment)
    this.#enforceSoon()
  }

  /** Record `Evicted`. */
  evicted(index: number): void {
    const segment = this.#byIndex[index]
    if (segment?.mirror === undefined) return
    this.#drop(segment)
    segment.standing = 'away'
    this.evictions += 1
    this.#evictedNow.push(segment)
  }

  #evictedNow: Segment[] = []

  #drop(segment: Segment): void {
    const mirror = segment.mirror!
    if (segment.sized) this.residentBytes -= segment.residentBytes
    segment.sized = false
    mirror.alive = false
    segment.mirror = undefined
    segment.objects.clear()
    this.#byMirror.delete(mirror)
  }

  #resize(segment: Segment, bytes: number): void {
    if (segment.sized) this.residentBytes -= segment.residentBytes
    segment.bytes = bytes
    segment.sized = true
    this.residentBytes += segment.residentBytes
  }

  // Loading

  /** Loads segments; resolves when all are here, rejects with the first that is not to be had. */
  load(ids: readonly Id[], derived: boolean, wait?: Wait): Promise<void> {
    if (this.over !== undefined) return Promise.reject(this.over)
    if (this.#overTold && !this.#enforce() && ids.some(id => this.segment(id).standing !== 'here')) return Promise.reject(this.#overBudget())
    return waiting<void>('loading', wait, (resolve, reject) => {
      const away = [...new Set(ids)].map(id => this.segment(id)).filter(segment => segment.standing !== 'here')
      const asked = away.filter(segment => segment.standing !== 'loading')
      let missing = away.length
      if (missing === 0) return resolve()
      const waiter = { resolve: () => { if (--missing === 0) resolve() }, reject }
      for (const segment of away) segment.waiters.push(waiter)
      for (const segment of asked) {
        segment.standing = 'loading'
        segment.derived ||= derived
      }
      if (asked.length > 0) {
        const { error } = this.driver.call(OP.load, w => {
          w.varint(asked.length)
          for (const segment of asked) w.raw(decodeId(segment.id)!).u8(segment.derived ? 1 : 0)
        })
        if (error !== undefined) {
          for (const segment of asked) segment.standing = 'away'
          reject(error)
        }
      }
      return () => {
        for (const segment of away) segment.waiters = segment.waiters.filter(other => other !== waiter)
      }
    })
  }

  /** Fails every load under way. */
  failLoads(error: HeapError): void {
    for (const segment of this.#segments.values()) {
      if (segment.standing === 'loading') segment.standing = 'away'
      const waiters = segment.waiters
      segment.waiters = []
      for (const waiter of waiters) waiter.reject(error)
    }
  }

  #standingError(segment: Segment, ref: HeapRef = this.refs.of(segment.id)): HeapError {
    const details = { refs: [ref] }
    switch (segment.standing) {
      case 'missing': return new HeapError('ERR_NOT_FOUND', `${ref.id} was never written`, { details })
      case 'deleted': return new HeapError('ERR_DELETED', `${ref.id} was deleted`, { details })
      case 'quarantined': return new HeapError('ERR_QUARANTINED', `${ref.id} is quarantined: its content could not be read`, { details })
      case 'forbidden': return new HeapError('ERR_FORBIDDEN', `${ref.id} is not for this token`, { details })
      default: return new HeapError('ERR_NOT_LOADED', `${ref.id} is not loaded: await ref.load(), or use heap.run()`, { details })
    }
  }

  // Refs

  /** The node a Ref points to; throws what stands in its way. */
  resolve(ref: HeapRef): Node {
    const segment = this.#segments.get(ref.segment) ?? new Segment(ref.segment)
    const mirror = segment.mirror
    if (mirror === undefined || segment.standing !== 'here') {
      if (this.over !== undefined && segment.standing !== 'deleted') throw this.over
      throw this.#standingError(segment, ref)
    }
    this.touch(segment)
    const node = ref.object === ref.segment ? mirror.root : this.#find(segment, ref.object)
    if (node === undefined || !isAttached(node)) throw new HeapError('ERR_DELETED', `${ref.id} was deleted`, { details: { refs: [ref] } })
    return node
  }

  #find(segment: Segment, object: Id): Node | undefined {
    const known = segment.objects.get(object)
    if (known !== undefined) return known
    const found = this.driver.call(OP.find, w => w.varint(segment.index).raw(decodeId(object)!)).object
    if (found === undefined || found.handle < 0) return undefined
    const node = segment.mirror!.nodes[found.handle]
    if (node !== undefined) this.#name(segment, node, object)
    return node
  }

  #name(segment: Segment, node: Node, object: Id): void {
    node.id = object
    segment.objects.set(object, node)
  }

  peekRef(ref: HeapRef): object | undefined {
    const segment = this.#segments.get(ref.segment)
    if (segment === undefined || segment.standing === 'away' || segment.standing === 'loading') return undefined
    return liveOf(this.resolve(ref))
  }

  valueOfRef(ref: HeapRef): object {
    return liveOf(this.resolve(ref))
  }

  async loadRef(ref: HeapRef, wait?: Wait): Promise<object> {
    await this.load([ref.segment], false, wait)
    return liveOf(this.resolve(ref))
  }

  /** What the mirror holds, as a program sees it. */
  liveOfStored(value: Stored | undefined): unknown {
    return value === undefined ? undefined : present(value)
  }

  refOf(live: object): HeapRef {
    const node = nodeOf(live)
    const segment = node === undefined ? undefined : this.#byMirror.get(node.mirror)
    if (node === undefined || segment === undefined) throw new TypeError('heap.refOf takes a live object of this heap')
    if (!isAttached(node)) throw new HeapError('ERR_DELETED', 'this object was deleted or replaced: nothing can point to it')
    if (node.handle === 0) return this.refs.of(segment.id)
    if (node.id === undefined) this.#name(segment, node, this.#askId(segment, node))
    return this.refs.of(segment.id, node.id!)
  }

  #askId(segment: Segment, node: Node): Id {
    this.commitPending()
    const section = this.#batch?.sections.get(node.mirror)
    if (section !== undefined && node.handle >= section.handles) {
      throw new TypeError('heap.refOf: this object was made in the transaction that is still open; heap.alloc() makes one that can be pointed to at once, or take its ref afterwards')
    }
    const found = this.driver.call(OP.object, w => w.varint(segment.index).varint(node.handle)).object
    if (found === undefined || found.handle < 0) throw new HeapError('ERR_DELETED', 'this object was deleted or replaced: nothing can point to it')
    return found.id
  }

  // Claims

  /** Adds "the work on this segment is done" to the open batch. */
  mark(segment: Segment, grant: Grant): void {
    const section = this.section(segment.mirror!)
    section.mark(grant)
    this.wrote()
  }

  // Budget

  #enforceSoon(): void {
    if (this.#enforcing !== undefined || this.options.budget.used <= this.options.budget.bytes) return
    this.#enforceIn(0)
  }

  /** A task and not a microtask: who waited for a load gets its object, and so holds it, before. */
  #enforceIn(delayMs: number): void {
    this.#enforcing = setTimeout(() => {
      this.#enforcing = undefined
      if (this.over !== undefined) return
      // Before any weak reference is read: those that were stay until the job ends.
      const collected = this.#overSince !== undefined && collectGarbage(() => performance.now())
      this.#enforce(collected)
    }, delayMs)
    unrefTimer(this.#enforcing)
  }

  /**
   * What stays over the budget is tried again: much of it is held only until the collector has been. What stays for long
   * is told, and then loads fail until it is better (S24).
   */
  #enforce(collected = false): boolean {
    const left = this.options.budget.enforce(this)
    if (left === 0) {
      this.#overSince = undefined
      this.#overTold = false
      return true
    }
    this.#overSince ??= performance.now()
    const long = performance.now() - this.#overSince > OVER_MS
    if (!this.#overTold && long && (collected || !canCollect())) {
      this.#overTold = true
      this.events.report(this.#overBudget())
    }
    if (this.#enforcing === undefined) this.#enforceIn(left > this.options.budget.bytes / 8 ? RETRY_MS_FAR : RETRY_MS)
    return false
  }

  #overBudget(): HeapError {
    const budget = this.options.budget.bytes
    return new HeapError('ERR_OVER_BUDGET', `what is held, pinned and unsaved takes more than the budget of ${budget} bytes`, { details: { budget, residentBytes: this.residentBytes, ...this.held() } })
  }

  /** Stops what was planned. */
  end(error: HeapError): void {
    this.over = error
    clearTimeout(this.#enforcing)
    this.options.budget.leave(this)
    this.failLoads(error)
  }

  release(bytes: number): number {
    if (this.over !== undefined || this.inTransact) return 0
    const candidates = [...this.#byMirror.values()].sort((a, b) => a.used - b.used)
    let released = 0
    for (const segment of candidates) {
      if (released >= bytes) break
      if (!this.#mayGo(segment)) continue
      const size = segment.residentBytes
      this.driver.call(OP.evict, w => w.varint(segment.index))
      if (segment.mirror === undefined) released += size
    }
    const gone = this.#evictedNow
    this.#evictedNow = []
    if (gone.length > 0) this.events.evicted(gone)
    return released
  }

  #mayGo(segment: Segment): boolean {
    return segment.index > 0 && segment.standing === 'here' && segment.pins === 0 && segment.watchers === 0
      && segment.dirtySeq <= this.#acked && !(this.#batch?.sections.has(segment.mirror!) ?? false) && !segment.isHeld
  }

  /** Bytes by why they are here. */
  held(): { held: number; pinned: number; unsaved: number } {
    let held = 0
    let pinned = 0
    let unsaved = 0
    for (const segment of this.#byMirror.values()) {
      if (segment.pins > 0 || segment.index === 0) pinned += segment.residentBytes
      else if (segment.dirtySeq > this.#acked) unsaved += segment.residentBytes
      else if (segment.isHeld) held += segment.residentBytes
    }
    return { held, pinned, unsaved }
  }

  /** The root's live object. */
  get root(): object {
    return liveOf(this.segment(ROOT_ID).mirror!.root as MapNode)
  }
}

/** Throws for what a synchronous function must not return. */
export function refuseThenable<R>(result: R): R {
  const then: unknown = (typeof result === 'object' && result !== null) || typeof result === 'function' ? (result as { then?: unknown }).then : undefined
  if (typeof then !== 'function') return result
  void (result as unknown as Promise<unknown>).then(undefined, () => {})
  throw new TypeError('transact takes a synchronous function: what it would await could change meanwhile; await first, then transact (all of it was undone)')
}
