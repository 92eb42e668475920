/**
 * The heap: the face that `open()` gives, over the space (segments and commits), the driver (wasm) and the link (socket).
 *
 * This file wires them together and says what their records mean to a program: status, events, waits, the end. It holds no
 * data of the heap; `space.ts` does.
 *
 * ```text
 * program ─► Heap ─► Space ─► Driver ─► wasm
 *              │                 │
 *              └── events ◄──────┴──► Link ─► relay
 * ```
 */

import { BigMapObject } from './bigmap.js'
import { publish, publishWait } from './diagnostics.js'
import { Driver, type Sink } from './driver.js'
import { OP, Writer } from './edge.js'
import { HeapError } from './errors.js'
import { Events, listenerError, reportUnheard } from './events.js'
import { Groups } from './groups.js'
import { defaultKey } from './write.js'
import { formatPath } from './input.js'
import { fullModule, GONE, loadFullModule, makeReplica, type MakeReplica, type ReplicaInstance } from './instance.js'
import { Link } from './link.js'
import { PresenceGroups } from './presence.js'
import { Rebuilds } from './rebuild.js'
import { HeapRef } from './refs.js'
import { Segment, type SharedBudget } from './residence.js'
import { segmentStats } from './residents.js'
import { ROOT_ID, Space, type VisibleCommit } from './space.js'
import { nodeOf } from './symbols.js'
import { encodeId, entropy, replicaIdOf } from './uuid.js'
import { waiting } from './wait.js'
import { ChangeStream, Watchers } from './watch.js'
import type { BigMap, Change, Claim, Heap, HeapEvents, HeapStats, NotThenable, Presence, Ref, Status, Version, Wait, WatchOptions, WebSocketLike } from './types.js'

/** What `open()` has made of its options. */
export interface HeapSetup {
  readonly url: string
  /** As it stands in the URL. */
  readonly encodedName: string
  readonly heapName: string
  readonly name: string
  readonly mustExist: boolean
  readonly budget: SharedBudget
  readonly maxUnsaved: number
  readonly token: ((reason: 'connect' | 'refresh') => string | Promise<string>) | undefined
  readonly webSocket: ((url: string, protocols: string[]) => WebSocketLike) | undefined
}

const WAIT = { flush: 0, sync: 1, version: 2, reach: 3 } as const
const CLOSE_MS = 5000
const CORE_SLACK = 2 << 20
const INSPECT = Symbol.for('nodejs.util.inspect.custom')

export class HeapObject<Root extends object> implements Heap<Root> {
  readonly #setup: HeapSetup
  readonly #events = new Events<HeapEvents>()
  readonly #space: Space
  readonly #driver: Driver
  readonly #link: Link
  readonly #watchers: Watchers
  readonly #groups: Groups
  readonly #presence: PresenceGroups
  readonly #maps = new Map<string, BigMapObject<unknown>>()
  /** What the replica is in, and how another one is made. */
  #instance: ReplicaInstance
  #make: MakeReplica = makeReplica
  readonly #rebuilds: Rebuilds
  replica: string
  #connection: Status['connection'] = 'connecting'
  #token = ''
  #connects = 0
  #epoch = ''
  #statusQueued = false
  #closing: Promise<void> | undefined

  constructor(setup: HeapSetup) {
    this.#setup = setup
    const seed = entropy(32)
    this.replica = encodeId(replicaIdOf(seed))
    const me = { replica: this.replica, ...(setup.name === '' ? {} : { name: setup.name }) }
    this.#space = new Space({ heapName: setup.heapName, me, budget: setup.budget, maxUnsaved: setup.maxUnsaved }, {
      visible: commit => this.#visible(commit),
      report: error => this.#report(error),
      statusChanged: () => this.#statusChanged(),
      loaded: segment => publish('coheap:load', () => ({ heap: setup.heapName, ref: `coheap:${segment.id}`, bytes: segment.bytes })),
      evicted: segments => this.#emit('evicted', { refs: segments.map(segment => this.#space.refs.of(segment.id)) }),
      quarantined: segment => this.#watchers.later(() => this.#emit('quarantine', { ref: this.#space.refs.of(segment.id), reason: 'its content could not be read' })),
      wantFull: now => this.#wantFull(now),
    })
    this.#instance = this.#make(this.#replicaOptions(seed))
    this.#driver = new Driver(this.#instance.replica, this.#sink())
    this.#rebuilds = this.#rebuilding()
    this.#driver.beforeIncoming = () => this.#space.writing.commitPendingReporting()
    this.#driver.afterRecords = () => this.#space.compareTouched()
    this.#space.driver = this.#driver
    this.#watchers = new Watchers(this.#space, () => this.version(), error => this.#report(error))
    this.#groups = new Groups(this.#driver)
    this.#presence = new PresenceGroups(this.#driver, me, fn => this.#watchers.later(fn))
    this.#link = new Link({ url: setup.url, webSocket: setup.webSocket, prepare: () => this.#prepare() }, {
      up: () => this.#incoming(OP.connected, w => w.raw(entropy(32)).str(this.#token)),
      receive: message => this.#incoming(OP.receive, w => w.raw(message)),
      down: reason => {
        this.#setConnection('offline')
        this.#incoming(reason.replaced === true ? OP.replaced : OP.disconnected)
        this.#groups.disconnected()
        this.#presence.disconnected()
        this.#lastLoss = reason.text
      },
      trying: () => this.#setConnection('connecting'),
      ended: error => {
        if (this.#space.over === undefined) this.#incoming(OP.disconnected)
        this.#fatal(error)
      },
    })
  }

  #lastLoss = ''
  /** Traps that were told of. */
  readonly #told = new WeakSet<HeapError>()

  #replicaOptions(seed: Uint8Array): Uint8Array {
    const { encodedName, name, mustExist, maxUnsaved } = this.#setup
    // The limit is kept at the write, in `space.ts`; the core's own is behind it, for what one write may still add.
    return new Writer().raw(seed).str(encodedName).str(name).varint(mustExist ? 1 : 0).varint(Math.floor(maxUnsaved * 1.25) + CORE_SLACK).slice()
  }

  /** Connects and waits for the root. @internal */
  async start(initial: object | undefined, wait: Wait): Promise<void> {
    const root = this.#space.load([ROOT_ID], true)
    root.catch(() => {})
    this.#link.start()
    try {
      await waiting<void>(`opening ${this.#setup.heapName}`, wait, (resolve, reject) => void root.then(resolve, reject))
      if (initial !== undefined) this.#fill(initial)
    } catch (error) {
      const cause = error instanceof HeapError && error.code === 'ERR_TIMEOUT' && this.#lastLoss !== ''
        ? new HeapError('ERR_TIMEOUT', `${error.message}; the last connection failed: ${this.#lastLoss}`, { details: error.details }) : error
      this.#end(new HeapError('ERR_CLOSED', 'the heap could not be opened'))
      throw cause
    }
  }

  /** Writes `initial` into the keys that are absent (S3). */
  #fill(initial: object): void {
    const root = nodeOf(this.#space.root)!
    this.#space.transact(() => {
      for (const key of Object.keys(initial)) defaultKey(root as never, key, (initial as Record<string, unknown>)[key])
    })
  }

  async #prepare(): Promise<void> {
    this.#connects += 1
    if (this.#setup.token !== undefined) this.#token = await this.#setup.token(this.#connects === 1 ? 'connect' : 'refresh')
  }

  /** A call that may bring changes from elsewhere: what was written here before comes before. */
  #incoming(op: number, build?: (w: Writer) => void): void {
    if (this.#space.over !== undefined) return
    this.#space.writing.commitPendingReporting()
    try {
      const { error } = this.#driver.call(op, build)
      if (error !== undefined) this.#report(error)
    } catch (error) {
      this.#report(error)
      this.#fatal(error instanceof HeapError ? error : new HeapError('ERR_ENGINE', String(error), { cause: error }))
    }
  }

  #sink(): Sink {
    const space = this.#space
    return {
      send: message => this.#link.send(message),
      applied: commit => {
        this.#rebuilds.progress()
        space.applied(commit)
      },
      loaded: segment => space.loaded(segment),
      committed: commit => {
        this.#rebuilds.progress()
        space.writing.committed(commit)
      },
      acked: (seq, unsaved, bytes) => {
        this.#rebuilds.progress()
        space.writing.acked(seq, unsaved, bytes)
        this.#groups.acked(seq)
      },
      online: (_exists, _timeMs, epoch) => {
        this.#link.settled()
        this.#setConnection('online')
        if (this.#epoch !== '' && this.#epoch !== epoch) this.#emit('epoch', { from: this.#epoch, to: epoch })
        this.#epoch = epoch
        queueMicrotask(() => {
          if (space.over !== undefined) return
          this.#groups.online()
          this.#presence.online()
        })
      },
      refused: (seq, code, label, segments) => {
        const touched = new Set(segments)
        const paths = [...space.segments].filter(segment => touched.has(segment.index)).map(segment => `coheap:${segment.id}`)
        space.writing.refused(seq)
        this.#groups.refused(seq)
        this.#watchers.later(() => this.#emit('refused', { code, paths, ...(label === '' ? {} : { label }) }))
        return paths
      },
      problem: error => {
        this.#watchers.later(() => this.#report(error))
        if (error.code === 'ERR_PROTOCOL') queueMicrotask(() => this.#link.drop())
      },
      overruled: told => {
        const error = space.overruled(told)
        if (error !== undefined) this.#watchers.later(() => this.#report(error))
      },
      conflict: index => {
        const error = space.conflict(index)
        if (error !== undefined) this.#watchers.later(() => this.#report(error))
      },
      index: (id, index) => space.index(id, index),
      evicted: index => space.gone(index),
      atRest: index => space.atRest(index),
      awake: index => space.awake(index),
      joined: (group, run, member) => this.#groups.joined(group, run, member),
      group: state => this.#groups.state(state),
      lost: (group, run, key, grant) => this.#groups.lost(group, run, key, grant),
      member: member => this.#presence.member(member),
      restoring: begins => publish('coheap:restore', () => ({ heap: this.#setup.heapName, begins })),
      needsFull: index => space.needsFull(index),
      moved: segment => space.moved(segment),
      fatal: error => this.#fatal(error),
      forked: (id, moved, copied) => this.#forked(id, moved, copied),
      inDoubt: commits => {
        for (const { seq } of commits) {
          space.writing.refused(seq)
          this.#groups.refused(seq)
        }
        const details = this.#doubtful = { edits: commits.flatMap(commit => commit.edits), labels: commits.map(commit => commit.label) }
        this.#watchers.later(() => this.#report(new HeapError('ERR_CONFLICT', `the relay no longer knows whether it has ${commits.length} commit(s) of this replica; they are not made again`, { details })))
      },
      reconnect: () => this.#again(),
      trapped: () => queueMicrotask(() => {
        try {
          this.#driver.mend()
        } catch { /* told as the end of it */ }
      }),
      mend: (op, error) => this.#rebuilds.rebuild(op, error),
    }
  }

  /**
   * The replica has gone on under another id: since another process, a copy of this one, commits under its own, or behind what is in
   * doubt. Or since the relay does not keep an id that was idle for long: that is nobody's concern.
   */
  #forked(replica: string, moved: number, copied: boolean): void {
    const doubtful = this.#doubtful
    this.#doubtful = undefined
    const details = Object.assign(doubtful ?? {}, { was: this.replica, replica, moved })
    this.replica = replica
    const me = { ...this.#space.options.me, replica }
    this.#space.options.me = me
    this.#presence.become(me)
    if (copied) this.#watchers.later(() => this.#report(new HeapError('ERR_CONFLICT', `another process commits as replica ${details.was}; this one goes on as ${replica}`, { details })))
    this.#again()
  }

  /** Opens another connection: the hello of this one does not say any more what the replica is. */
  #again(): void {
    queueMicrotask(() => {
      // Where there is none the link is about to try; in rest the end of the rest will.
      if (this.#connection === 'offline' || this.#resting || this.#space.over !== undefined || this.#dead !== undefined) return
      this.#rest()
      this.#wake()
    })
  }

  // Another instance after a trap

  #rebuilding(): Rebuilds {
    const [space, driver] = [this.#space, this.#driver]
    return new Rebuilds({
      replica: () => this.replica, driver, slots: space.slots,
      make: () => this.#make(this.#replicaOptions(entropy(32))),
      blamed: () => this.#instance.touching(),
      disconnected: () => {
        this.#link.pause()
        if (this.#dead === undefined) this.#setConnection('connecting')
        this.#groups.disconnected()
        this.#presence.disconnected()
      },
      standing: (instance, error) => {
        this.#instance = instance
        space.compareTouched()
        this.#watchers.later(() => this.#report(error))
        if (!this.#resting && this.#dead === undefined) this.#link.renew()
      },
      awake: index => space.awake(index),
      quarantine: segment => space.quarantine(segment),
      fallen: error => {
        driver.give(error)
        this.#fatal(error)
      },
    })
  }

  // The full module

  #full = false
  #goingFull = false
  #resting = false

  /**
   * The full module is needed. `now`: before the next call; gives whether the replica is in it. If the module has to be
   * fetched first, the connection rests until then, so that nothing from elsewhere comes before the commits that wait for it.
   */
  #wantFull(now: boolean): boolean {
    if (this.#full) return true
    const make = fullModule()
    if (now && make !== undefined) {
      try {
        this.#moveToFull(make)
      } finally {
        this.#wake()
      }
      return true
    }
    if (now) this.#rest()
    if (!this.#goingFull) void this.#goFull()
    return false
  }

  async #goFull(): Promise<void> {
    this.#goingFull = true
    try {
      const make = await loadFullModule()
      if (this.#space.over !== undefined) return
      this.#space.writing.commitPendingReporting()
      if (!this.#full) this.#moveToFull(make)
      this.#space.writing.resume()
    } catch (error) {
      this.#space.giveUpFull(error as HeapError)
      this.#report(error)
    } finally {
      this.#goingFull = false
      this.#wake()
    }
  }

  /** The replica goes on in an instance of the full module; its connection does not go along. */
  #moveToFull(make: MakeReplica): void {
    const instance = make(this.#replicaOptions(entropy(32)))
    this.#rest()
    this.#driver.moveTo(instance.replica)
    this.#instance = instance
    this.#make = make
    this.#full = true
  }

  /** Lets the connection go for a moment. The relay keeps the claims of a replica that soon comes back. */
  #rest(): void {
    if (this.#resting || this.#dead !== undefined) return
    this.#resting = true
    this.#link.pause()
    this.#setConnection('connecting')
    this.#driver.call(OP.disconnected)
    this.#groups.disconnected()
    this.#presence.disconnected()
  }

  #wake(): void {
    if (!this.#resting) return
    this.#resting = false
    if (this.#space.over === undefined && this.#dead === undefined) this.#link.renew()
  }

  // State

  get root(): Root {
    return this.#space.root as Root
  }

  get status(): Status {
    const space = this.#space
    return {
      connection: this.#connection, unsaved: space.writing.unsaved, unsavedMs: space.writing.unsavedMs, rttMs: this.#link.rttMs,
      residentBytes: space.residentBytes, segments: space.residents.count,
    }
  }

  #setConnection(connection: Status['connection']): void {
    if (this.#connection === connection || this.#connection === 'closed') return
    this.#connection = connection
    this.#statusChanged()
  }

  #statusChanged(): void {
    if (this.#statusQueued || !this.#events.has('status')) return
    this.#statusQueued = true
    queueMicrotask(() => {
      this.#statusQueued = false
      this.#emit('status', this.status)
    })
  }

  #visible(commit: VisibleCommit): void {
    const { origin, by, label, touched } = commit
    const told = (): object => ({ heap: this.#setup.heapName, label, refs: [...touched].map(segment => `coheap:${segment.id}`) })
    if (origin === 'local') publish('coheap:commit', () => ({ ...told(), unsaved: this.#space.writing.unsaved }))
    else if (by.replica !== '') publish('coheap:apply', () => ({ ...told(), by }))
    this.#watchers.visible(commit)
  }

  #emit<K extends keyof HeapEvents>(type: K, event: HeapEvents[K]): void {
    for (const error of this.#events.emit(type, event)) this.#report(listenerError(error), type)
  }

  #report(error: unknown, from?: keyof HeapEvents): void {
    const event = error instanceof HeapError ? error : listenerError(error)
    // One trap is one event, also where it undid a commit at the end of a turn.
    if (this.#told.has(event)) return
    if (event.code === 'ERR_ENGINE' && 'during' in event.details) this.#told.add(event)
    if (from === 'error' || !this.#events.has('error')) return reportUnheard(event)
    this.#emit('error', event)
  }

  /** There will be no connection any more: what waits fails, reads go on, writes wait in memory. */
  #fatal(error: HeapError): void {
    if (this.#space.over !== undefined || this.#dead !== undefined) return
    this.#dead = error
    this.#link.end()
    this.#setConnection('offline')
    this.#driver.failAll(error)
    this.#space.writing.failWaits(error)
    this.#space.failLoads(error)
    this.#groups.failAll(error)
    if (this.#events.has('error')) queueMicrotask(() => this.#emit('error', error))
  }

  /** Details of the event of commits in doubt, until the replica has gone on under another id behind them (G5: one event). */
  #doubtful: object | undefined
  #dead: HeapError | undefined

  // Objects

  alloc<T extends object>(value: T, where?: { history?: boolean; near?: Ref<any> }): Ref<T> {
    return this.#space.alloc(value, where?.history === true, where?.near) as unknown as Ref<T>
  }

  ref<T extends object>(id: string): Ref<T> {
    return this.#space.refs.parse(id) as unknown as Ref<T>
  }

  refOf<T extends object>(live: T): Ref<T> {
    return this.#space.refOf(live) as unknown as Ref<T>
  }

  transact<R>(fn: () => NotThenable<R>, o?: { label?: string }): R {
    return this.#space.transact(fn as () => R, o?.label)
  }

  async run<R>(fn: () => NotThenable<R>, o?: Wait & { label?: string }): Promise<R> {
    const pins: Segment[] = []
    try {
      for (;;) {
        try {
          return this.transact(fn, o)
        } catch (error) {
          if (!(error instanceof HeapError) || error.code !== 'ERR_NOT_LOADED') throw error
          const refs = error.details['refs'] as readonly HeapRef[] | undefined
          if (refs === undefined) throw error
          for (const ref of refs) {
            const segment = this.#space.segment(ref.segment)
            segment.pins += 1
            pins.push(segment)
          }
          await this.#alive(this.#space.load(refs.map(ref => ref.segment), error.details['derived'] === true, o))
        }
      }
    } finally {
      for (const segment of pins) segment.pins -= 1
    }
  }

  async load<T extends object>(refs: Iterable<Ref<T>>, o?: Wait): Promise<T[]> {
    if (typeof (refs as Partial<Iterable<unknown>> | undefined)?.[Symbol.iterator] !== 'function') throw new TypeError('heap.load takes several Refs, such as an array of them; for one: await ref.load()')
    const all = [...refs].map(ref => this.#own(ref))
    await this.#alive(this.#space.load(all.map(ref => ref.segment), false, o))
    return all.map(ref => this.#space.valueOfRef(ref) as T)
  }

  #own(ref: Ref<object>): HeapRef {
    if (!(ref instanceof HeapRef) || !ref.isOf(this.#space)) throw new TypeError('this takes a Ref of this heap')
    return ref
  }

  pin(ref: Ref<any>): Disposable {
    const segment = this.#space.segment(this.#own(ref).segment)
    segment.pins += 1
    let pinned = true
    return { [Symbol.dispose]: () => { if (pinned) { pinned = false; segment.pins -= 1 } } }
  }

  async evict(o?: { toBytes?: number }): Promise<{ residentBytes: number; segments: number }> {
    this.#space.writing.commitPending()
    this.#space.release(Math.max(0, this.#space.residentBytes - (o?.toBytes ?? 0)))
    return { residentBytes: this.#space.residentBytes, segments: this.#space.residents.count }
  }

  map<V>(name: string, o?: { partitions?: number }): BigMap<V> {
    let map = this.#maps.get(name)
    if (map === undefined) {
      map = new BigMapObject<unknown>(name, o?.partitions, {
        space: this.#space, driver: this.#driver, groups: this.#groups, watchers: this.#watchers,
        report: error => this.#report(error), flush: wait => this.flush(wait), settle: wait => this.#settle(wait), alive: promise => this.#alive(promise),
      })
      this.#maps.set(name, map)
    } else map.sayPartitions(o?.partitions)
    return map as BigMapObject<unknown> as BigMap<V>
  }

  // Waits

  async flush(o?: Wait): Promise<Version> {
    return await this.#wait('flush', o) as Version
  }

  async sync(o?: Wait): Promise<Version> {
    return await this.#wait('sync', o) as Version
  }

  async version(o?: Wait): Promise<Version> {
    return await this.#wait('version', o) as Version
  }

  async reach(v: Version | string, o?: Wait): Promise<void> {
    await this.#wait('reach', o, String(v))
  }

  #wait(what: keyof typeof WAIT, wait: Wait | undefined, version?: string): Promise<string> {
    this.#mustBeOpen()
    this.#space.writing.commitPending()
    return publishWait(this.#setup.heapName, what, this.#waitFor(what, wait, version))
  }

  #waitFor(what: keyof typeof WAIT, wait: Wait | undefined, version?: string): Promise<string> {
    const ready = this.#space.writing.ready
    if (ready === undefined) return this.#driver.wait(what, WAIT[what], version, wait)
    // Commits wait for the full module: what is asked for now is about them too.
    return waiting<string>(what, wait, (resolve, reject) => {
      const ended = new AbortController()
      ready.then(() => {
        this.#mustBeOpen()
        return this.#driver.wait(what, WAIT[what], version, { signal: ended.signal })
      }).then(resolve, reject)
      return () => ended.abort()
    })
  }

  #mustBeOpen(): void {
    if (this.#space.over !== undefined) throw this.#space.over
    if (this.#dead !== undefined) throw this.#dead
  }

  /** Waits until what was written here is durable, or refused and undone. */
  async #settle(wait: Wait | undefined): Promise<void> {
    await this.flush(wait).catch((error: unknown) => {
      if (!(error instanceof HeapError && error.code === 'ERR_REFUSED')) throw error
    })
    await this.sync(wait)
  }

  /** Fails at once what would wait for a connection that never comes. */
  async #alive<T>(promise: Promise<T>): Promise<T> {
    if (this.#dead === undefined) return promise
    promise.catch(() => {})
    throw this.#dead
  }

  // Watching

  watch<V>(select: () => V, fn: (v: V, before: V | undefined) => void, o?: { initial?: boolean; equals?: (a: V, b: V) => boolean }): Disposable
  watch<T extends object>(target: T | Ref<T> | Iterable<Ref<T>>, fn: (c: Change<T>) => void, o?: WatchOptions): Disposable
  watch(target: unknown, fn: (...args: never[]) => void, o: object = {}): Disposable {
    const stop = typeof target === 'function'
      ? this.#watchers.select(target as () => unknown, fn as (value: unknown, before: unknown) => void, o)
      : this.#watchObject(target, fn as (change: Change<object>) => void, o)
    return { [Symbol.dispose]: stop }
  }

  #watchObject(target: unknown, fn: (change: Change<object>) => void, o: WatchOptions): () => void {
    if (o.signal?.aborted === true) return () => {}
    const node = nodeOf(target)
    let stop: () => void
    if (node !== undefined) stop = this.#watchers.watchNode(node, fn, o)
    else if (target instanceof HeapRef) stop = this.#watchers.watchRef(this.#own(target), fn, o)
    else if (typeof target === 'object' && target !== null && Symbol.iterator in target) {
      const stops = [...(target as Iterable<HeapRef>)].map(ref => this.#watchers.watchRef(this.#own(ref), fn, o))
      stop = () => { for (const each of stops) each() }
    } else throw new TypeError('heap.watch takes a function, a live object, a Ref or several Refs')
    o.signal?.addEventListener('abort', stop, { once: true })
    return stop
  }

  changes<T extends object>(target: T | Ref<T>, o: WatchOptions & { buffer?: 'latest' | number; signal?: AbortSignal } = {}): AsyncIterableIterator<Change<T>> & AsyncDisposable {
    return new ChangeStream<T>(fn => this.#watchObject(target, fn as unknown as (change: Change<object>) => void, o), o)
  }

  addEventListener<K extends keyof HeapEvents>(type: K, fn: (e: HeapEvents[K]) => void, o?: { signal?: AbortSignal; once?: boolean }): void {
    this.#events.add(type, fn, o)
  }

  removeEventListener<K extends keyof HeapEvents>(type: K, fn: (e: HeapEvents[K]) => void): void {
    this.#events.remove(type, fn)
  }

  // Others

  presence<P extends object>(group = 'default'): Presence<P> {
    return this.#presence.group<P>(group)
  }

  claim(ref: Ref<any>, o?: Wait): Promise<Claim | undefined> {
    this.#mustBeOpen()
    return this.#groups.claim('', '-', this.#own(ref).id, o)
  }

  stats(): HeapStats {
    const space = this.#space
    const [commits = 0, refused = 0, quarantined = 0, deltasIn = 0, deltasOut = 0, bytesIn = 0, bytesOut = 0, rebuilds = 0, , live = 0] =
      space.over === undefined && this.#driver.alive ? this.#driver.call(OP.stats).stats ?? [] : []
    const { held, pinned } = space.held()
    let encoded = 0
    for (const segment of space.segments) if (segment.mirror !== undefined) encoded += segment.bytes
    return {
      bytes: {
        live, packed: this.#driver.keeper.bytes, wasm: this.#instance.memory(), mirrors: space.residentBytes - encoded, held, pinned,
        queued: space.writing.unsavedBytes + this.#link.bufferedAmount, budget: this.#setup.budget.bytes,
      },
      get segments() { return segmentStats(space.residents) },
      loads: space.loads, evictions: space.evictions, rebuilds: rebuilds + this.#rebuilds.count, deltasIn, deltasOut, bytesIn, bytesOut, commits, refused,
      quarantined: quarantined + this.#rebuilds.quarantined,
    }
  }

  // The end

  unref(): this {
    this.#link.unref()
    this.#driver.unref()
    return this
  }

  close(o: { flush?: boolean; timeoutMs?: number } = {}): Promise<void> {
    return (this.#closing ??= this.#close(o))
  }

  async #close(o: { flush?: boolean; timeoutMs?: number }): Promise<void> {
    if (this.#space.over !== undefined) return
    this.#space.writing.commitPendingReporting()
    let refusal: unknown
    if (o.flush !== false && this.#space.writing.unsaved > 0) {
      await this.flush({ timeoutMs: o.timeoutMs ?? CLOSE_MS }).catch((error: unknown) => { refusal = error })
    }
    const unsaved = this.#space.writing.unsaved
    this.#end(new HeapError('ERR_CLOSED', 'the heap is closed'))
    if (unsaved > 0 && o.flush !== false) {
      throw new HeapError('ERR_UNSAVED', `${unsaved} commits were not durable when the heap closed, and are lost with this process`, { details: { unsaved }, cause: refusal })
    }
  }

  #end(over: HeapError): void {
    if (this.#space.over !== undefined) return
    this.#space.writing.commitPendingReporting()
    this.#setConnection('closed')
    this.#link.end()
    this.#space.end(over)
    this.#groups.failAll(over)
    this.#driver.close(over)
    this.#instance = GONE
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  toString(): string {
    return `Heap(${formatPath([this.#setup.heapName])}, ${this.#connection})`
  }

  [INSPECT](): string {
    const { connection, unsaved, segments } = this.status
    return `Heap { name: '${this.#setup.heapName}', connection: '${connection}', unsaved: ${unsaved}, segments: ${segments} }`
  }
}
