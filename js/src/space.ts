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

import { allocate } from './alloc.js'
import type { Grant, Section } from './batch.js'
import { Comparison } from './comparison.js'
import { conflictError, overruledError } from './conflict.js'
import type { Applied, Driver, Loaded, Overruled, SegmentPatches } from './driver.js'
import { KIND, OP } from './edge.js'
import { HeapError } from './errors.js'
import { isAttached, type Mirror, type Logged, type MapNode, type Node, type Stored } from './mirror.js'
import { applyPatches, resetMirror } from './patches.js'
import { liveOf, present } from './proxy.js'
import { HeapRef, RefTable, type RefHome } from './refs.js'
import { Enforcer, type Household } from './enforce.js'
import { Idle } from './idle.js'
import { Residents } from './residents.js'
import { Segment, type SharedBudget, type Standing } from './residence.js'
import { nodeOf } from './symbols.js'
import { decodeId, encodeId, type Id } from './uuid.js'
import { waiting } from './wait.js'
import type { WriteHost } from './write.js'
import { Writing, type Ground } from './writing.js'
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
  /** The full module is needed, `now` or soon; gives whether the replica is in it. */
  wantFull(now: boolean): boolean
}

export interface SpaceOptions {
  readonly heapName: string
  /** Replaced when the replica takes another id. */
  me: Author
  readonly budget: SharedBudget
  readonly maxUnsaved: number
}

export class Space implements RefHome, WriteHost, Ground, Household {
  driver!: Driver
  /** `undefined` unless debugging. */
  readonly #comparison: Comparison | undefined = Comparison.wanted() ? new Comparison(this) : undefined
  readonly refs: RefTable = new RefTable(this)
  readonly #segments = new Map<Id, Segment>()
  readonly #byIndex: (Segment | undefined)[] = []
  readonly residents = new Residents(this)
  readonly writing: Writing
  /** What the expression that is evaluated just now reads. */
  reads: Set<Segment> | undefined
  #lastRoot: Mirror | undefined
  readonly #enforcer: Enforcer
  readonly #idle = new Idle(this)
  /** Set once nothing can be written or loaded any more. */
  over: HeapError | undefined = undefined
  loads = 0
  evictions = 0

  constructor(readonly options: SpaceOptions, readonly events: SpaceEvents) {
    this.segment(ROOT_ID).index = 0
    this.#byIndex[0] = this.segment(ROOT_ID)
    this.segment(ROOT_ID).derived = true
    this.writing = new Writing(this, options.maxUnsaved)
    this.#enforcer = new Enforcer(this, options.budget)
  }

  get heapName(): string {
    return this.options.heapName
  }

  get segments(): Iterable<Segment> {
    return this.#segments.values()
  }

  /** Those that the replica has given an index, by it. */
  get slots(): readonly (Segment | undefined)[] {
    return this.#byIndex
  }

  get resident(): Iterable<Segment> {
    return this.residents
  }

  get residentBytes(): number {
    return this.residents.bytes
  }

  get shown(): Iterable<Segment> {
    return this.residents.shown
  }

  segment(id: Id): Segment {
    let segment = this.#segments.get(id)
    if (segment === undefined) this.#segments.set(id, (segment = new Segment(id)))
    return segment
  }

  segmentOf(node: Node): Segment | undefined {
    return this.residents.of(node.mirror)
  }

  segmentOfMirror(mirror: Mirror): Segment | undefined {
    return this.residents.of(mirror)
  }

  touch(segment: Segment): void {
    this.residents.touch(segment)
    this.reads?.add(segment)
  }

  // Writing

  get inTransact(): boolean {
    return this.writing.inTransact
  }

  transact<R>(fn: () => R, label?: string): R {
    return this.writing.transact(fn, label)
  }

  section(mirror: Mirror): Section {
    return this.writing.section(mirror)
  }

  wrote(): void {
    this.writing.wrote()
  }

  hasRoom(bytes: number): boolean {
    return this.writing.hasRoom(bytes)
  }

  mayWrite(bytes: number): void {
    this.writing.mayWrite(bytes)
  }

  closeBatch(): void {
    this.writing.commitPending()
  }

  wroteSegments(label: string, grown: ReadonlyMap<Segment, number>, corrections: readonly SegmentPatches[]): void {
    const touched = new Set(grown.keys())
    for (const [segment, bytes] of grown) {
      this.#resize(segment, segment.bytes + bytes)
      this.touch(segment)
    }
    this.#applyParts(corrections, touched)
    this.#show('local', this.options.me, label, touched)
    this.#enforcer.soon()
  }

  showAgain(indexes: Iterable<number>): void {
    const again = [...indexes].map(index => this.#byIndex[index]).filter(segment => segment?.mirror !== undefined) as Segment[]
    if (again.length > 0) this.#ask(again)
  }

  needsFullNow(): boolean {
    return this.events.wantFull(true)
  }

  statusChanged(): void {
    this.events.statusChanged()
    this.#enforcer.soon()
  }

  report(error: unknown): void {
    this.events.report(error)
  }

  // The full module

  /** Record `NeedsFull`: what keeps history can only be read there. */
  needsFull(index: number): void {
    const segment = this.#byIndex[index]
    if (segment === undefined) return
    segment.history = true
    queueMicrotask(() => { if (this.over === undefined) this.events.wantFull(false) })
  }

  /** The full module is not to be had: held commits are undone, and loads that wait for it fail. */
  giveUpFull(error: HeapError): void {
    this.writing.giveUp(error)
    for (const segment of this.#segments.values()) {
      if (!segment.history || segment.standing !== 'loading') continue
      segment.standing = 'away'
      const waiters = segment.waiters
      segment.waiters = []
      for (const waiter of waiters) waiter.reject(error)
    }
  }

  /** Record `Loaded` of a replica that has moved: the mirrors hold it already. */
  moved(record: Loaded): void {
    const segment = this.#byIndex[record.segment]
    if (segment !== undefined) this.#comparison?.add(segment)
  }

  tookBack(mirrors: readonly Mirror[]): void {
    const touched = new Set<Segment>()
    for (const mirror of mirrors) {
      const segment = this.residents.of(mirror)
      if (segment !== undefined) touched.add(segment)
    }
    this.#show('remote', { replica: '' }, '', touched)
  }

  agreed(mirrors: Iterable<Mirror>): void {
    for (const mirror of mirrors) {
      const segment = this.residents.of(mirror)
      if (segment !== undefined) this.#comparison?.add(segment)
    }
    this.compareTouched()
  }

  // New segments

  alloc(value: object, history: boolean, near?: unknown): HeapRef {
    return allocate(this, value, history, near)
  }

  /** A new segment is not to be. */
  forget(mirror: Mirror): void {
    const segment = this.residents.of(mirror)
    if (segment === undefined) return
    this.residents.leave(segment)
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
    for (const segment of touched) this.#comparison?.add(segment)
    this.events.visible({ origin, by, label, touched, logs })
  }

  /** Compares the mirrors of what was touched with what their engines hold. For when no call is under way. */
  compareTouched(): void {
    this.#comparison?.run()
  }

  /** Record `Overruled`: what this replica made is lost to another kind (S2). */
  overruled(told: Overruled): HeapError | undefined {
    const segment = this.#byIndex[told.segment]
    return segment?.mirror === undefined ? undefined : overruledError(told, segment.mirror, object => this.refs.of(segment.id, object))
  }

  /** Record `Conflict`: what is shown of a segment until it is loaded next is nowhere else (CORE-PROTOCOL D4). */
  conflict(index: number): HeapError | undefined {
    const segment = this.#byIndex[index]
    return segment?.mirror === undefined ? undefined : conflictError(segment.mirror, object => this.refs.of(segment.id, object))
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
    if (standing === 'quarantined') return this.#suspend(segment)
    if (standing !== 'here') return this.#absent(segment, standing)
    this.#loadedHere(segment, record)
    const waiters = segment.waiters
    segment.waiters = []
    for (const waiter of waiters) waiter.resolve()
  }

  /** A segment is not to be had. What programs hold of it keeps its last values. */
  #absent(segment: Segment, standing: Standing): void {
    segment.standing = standing
    if (standing === 'quarantined') {
      if (segment.mirror !== undefined) segment.mirror.ended = this.#standingError(segment)
      this.events.quarantined(segment)
    }
    this.#leave(segment)
    this.#rejectWaiters(segment)
  }

  #rejectWaiters(segment: Segment): void {
    const waiters = segment.waiters
    segment.waiters = []
    for (const waiter of waiters) waiter.reject(this.#standingError(segment))
  }

  /** A segment stands still: what programs hold of it keeps its last values, and may go on later (R12). */
  #suspend(segment: Segment): void {
    const { mirror } = segment
    if (mirror === undefined) return this.#absent(segment, 'quarantined')
    segment.standing = 'quarantined'
    mirror.ended = this.#standingError(segment)
    mirror.alive = false
    this.residents.uncount(segment)
    this.events.quarantined(segment)
    this.#rejectWaiters(segment)
  }

  /** The engine fails on its content, again and again. */
  quarantine(segment: Segment): void {
    this.#absent(segment, 'quarantined')
  }

  #loadedHere(segment: Segment, record: Loaded): void {
    const makeRef = (id: Id, object: Id): HeapRef => this.refs.of(id, object)
    if (segment.mirror?.ended !== undefined) {
      if (record.reset) {
        segment.mirror.ended = undefined
        segment.mirror.alive = true
      } else {
        // Its handles are not those of this mirror.
        this.#leave(segment)
      }
    }
    const [fresh, atHand] = [segment.mirror === undefined, segment.standing === 'packed']
    const mirror = segment.mirror ?? this.residents.show(segment)
    segment.marks = fresh || !record.reset ? applyPatches(mirror, record.patches, makeRef) : resetMirror(mirror, record.patches, makeRef)
    if (mirror.root === undefined) mirror.create(KIND.map, 0)
    segment.standing = 'here'
    this.#resize(segment, record.bytes)
    if (!atHand) {
      this.loads += 1
      this.events.loaded(segment)
    }
    if (!fresh) this.#show('remote', { replica: '' }, '', new Set([segment]))
    this.#comparison?.add(segment)
    this.#enforcer.soon()
  }

  /** Record `Evicted`. */
  gone(index: number): void {
    const segment = this.#byIndex[index]
    if (segment === undefined || (segment.mirror === undefined && segment.standing !== 'packed')) return
    this.#leave(segment)
    segment.standing = 'away'
    this.evictions += 1
  }

  evicted(segments: readonly Segment[]): void {
    this.events.evicted(segments)
  }

  #leave(segment: Segment): void {
    if (segment.index === 0 && segment.mirror !== undefined) this.#lastRoot = segment.mirror
    this.residents.leave(segment)
  }

  #resize(segment: Segment, bytes: number): void {
    this.residents.size(segment, bytes)
    this.#idle.stir()
  }

  // At rest

  /** Asks for a segment to be here as bytes from now on (CORE-PROTOCOL L6), with its mirror or without. The replica may decline. */
  pack(segment: Segment, mirrored: boolean): void {
    if (segment.index < 0 || this.isDirty(segment)) return
    this.#forgets = mirrored ? undefined : segment
    this.driver.call(OP.pack, w => w.varint(segment.index).u8(mirrored ? 1 : 0))
    this.#forgets = undefined
  }

  /** The one that is asked to go on without its mirror. */
  #forgets: Segment | undefined

  /** Record `AtRest`. */
  atRest(index: number): void {
    const segment = this.#byIndex[index]
    if (segment === undefined) return
    if (segment === this.#forgets) this.residents.pack(segment)
    else this.residents.rest(segment, true)
  }

  /** Record `Awake`. */
  awake(index: number): void {
    const segment = this.#byIndex[index]
    if (segment === undefined) return
    this.residents.rest(segment, false)
    this.#idle.stir()
  }

  /** What is here as bytes gets its mirror, at once. */
  show(segment: Segment): void {
    if (segment.standing !== 'packed' || this.over !== undefined) return
    const error = this.#ask([segment])
    if (error !== undefined) throw error
    // The replica waits for the relay to give it anew.
    if (segment.standing as Standing === 'packed') segment.standing = 'loading'
  }

  // Loading

  /** Loads segments; resolves when all are here, rejects with the first that is not to be had. */
  load(ids: readonly Id[], derived: boolean, wait?: Wait): Promise<void> {
    if (this.over !== undefined) return Promise.reject(this.over)
    try {
      for (const id of ids) this.show(this.segment(id))
    } catch (error) {
      return Promise.reject(error as Error)
    }
    if (ids.some(id => this.segment(id).standing !== 'here')) {
      const refusal = this.#enforcer.refusal()
      if (refusal !== undefined) return Promise.reject(refusal)
    }
    return waiting<void>('loading', wait, (resolve, reject) => {
      const away = [...new Set(ids)].map(id => this.segment(id)).filter(segment => segment.standing !== 'here')
      // Also what is loading already, if whoever asked first did mind that it is missing.
      const asked = away.filter(segment => segment.standing !== 'loading' || (derived && !segment.derived))
      let missing = away.length
      if (missing === 0) return resolve()
      const waiter = { resolve: () => { if (--missing === 0) resolve() }, reject }
      for (const segment of away) segment.waiters.push(waiter)
      for (const segment of asked) {
        segment.standing = 'loading'
        segment.derived ||= derived
      }
      if (asked.length > 0) {
        const error = this.#ask(asked)
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

  #ask(segments: readonly Segment[]): HeapError | undefined {
    let error: HeapError | undefined
    try {
      error = this.driver.call(OP.load, w => {
        w.varint(segments.length)
        for (const segment of segments) w.raw(decodeId(segment.id)!).u8(segment.derived ? 1 : 0)
      }).error
    } catch (thrown) {
      error = thrown as HeapError
    }
    if (segments.some(segment => segment.history)) this.events.wantFull(false)
    return error
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
    this.show(segment)
    const { mirror } = segment
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
    const known = segment.mirror!.near.get(object) ?? segment.objects.get(object)
    if (known !== undefined || segment.index < 0) return known
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
    if (segment === undefined) return undefined
    this.show(segment)
    if (segment.standing === 'away' || segment.standing === 'loading') return undefined
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
    const segment = node === undefined ? undefined : this.residents.of(node.mirror)
    if (node === undefined || segment === undefined) throw new TypeError('heap.refOf takes a live object of this heap')
    if (!isAttached(node)) throw new HeapError('ERR_DELETED', 'this object was deleted or replaced: nothing can point to it')
    if (node.handle === 0) return this.refs.of(segment.id)
    if (node.id === undefined) this.#name(segment, node, this.#askId(segment, node))
    return this.refs.of(segment.id, node.id!)
  }

  #askId(segment: Segment, node: Node): Id {
    this.writing.commitPending()
    if (this.writing.isHeld(node)) throw new HeapError('ERR_ENGINE', 'heap.refOf: this object was made while the module for segments with history is being loaded; await heap.flush() first', { retryable: true })
    const section = this.writing.openSection(node.mirror)
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

  /** In a transaction nothing goes; nor while commits are held, which the replica does not know of. */
  get busy(): boolean {
    return this.over !== undefined || this.writing.inTransact || this.writing.holding
  }

  isDirty(segment: Segment): boolean {
    return this.writing.isDirty(segment)
  }

  evict(segment: Segment): void {
    this.driver.call(OP.evict, w => w.varint(segment.index))
  }

  release(bytes: number): number {
    return this.#enforcer.release(bytes)
  }

  held(): { held: number; pinned: number; unsaved: number } {
    return this.#enforcer.held()
  }

  /** Stops what was planned. */
  end(error: HeapError): void {
    for (const segment of this.residents.shown) this.#comparison?.add(segment)
    try {
      this.compareTouched()
    } catch { /* the engine broke before, or the process is told of the difference: what is to end ends */ }
    this.over = error
    this.#enforcer.end()
    this.#idle.end()
    this.failLoads(error)
    this.writing.failWaits(error)
  }

  /** The root's live object; when it is quarantined, the last one. */
  get root(): object {
    return liveOf((this.segment(ROOT_ID).mirror ?? this.#lastRoot)!.root as MapNode)
  }
}
