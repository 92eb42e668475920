/**
 * BigMap: a map of any size, split over partitions that load and leave on their own (S26).
 *
 * Each partition is a segment whose first object is a plain map; their ids are derived from the root and the map's name, so
 * all processes meet in the same ones. Number 0 is the *meta* segment: its key `partitions` says how many there are, written
 * with the first value. A key lives in partition FNV-1a-32(UTF-8 of the key) mod that number.
 *
 * What `get` and its like return are snapshots: they hold nothing. Only a live value or a Partition in a program's hands keeps
 * its segment here. Next: `partition.ts`, `share.ts`.
 */

import { KIND, LIMIT, OP } from './edge.js'
import { HeapError } from './errors.js'
import { ROOT_ID, type Space } from './space.js'
import { refuseThenable } from './writing.js'
import { defaultOptions, PartitionObject } from './partition.js'
import { snapshotOf, snapshotOfStored } from './snapshot.js'
import { share, type ShareOptions } from './share.js'
import { addToCounter, deleteKey, setKey } from './write.js'
import { counter } from './values.js'
import { sortedKeys, type MapNode } from './mirror.js'
import type { Driver } from './driver.js'
import type { Groups } from './groups.js'
import type { Segment } from './residence.js'
import type { VisibleCommit } from './space.js'
import type { BigMap, MapChange, Partition, Snapshot, Wait } from './types.js'
import type { Watchers } from './watch.js'
import type { Id } from './uuid.js'

const PARTITIONS_DEFAULT = 1024
/** A session follows 65,536 segments at most (`core/src/limits.rs`): the root and the meta segment are among them. */
const PARTITIONS_MAX = 65_533
/** Partitions that are loaded at a time when all of them are walked through. */
const WALK = 16
const WINDOW_BYTES_MIN = 1 << 20
const WINDOW_BYTES_MAX = 32 << 20
const COMMIT_BYTES = 600 * 1024

/** What a map needs of its heap. */
export interface MapHost {
  readonly space: Space
  readonly driver: Driver
  readonly groups: Groups
  readonly watchers: Watchers
  report(error: unknown): void
  flush(wait?: Wait): Promise<unknown>
  /** Waits until what was written here is durable, or refused and undone. */
  settle(wait?: Wait): Promise<void>
  /** Rejects at once if there will be no connection any more. */
  alive<T>(promise: Promise<T>): Promise<T>
}

export class BigMapObject<V> implements BigMap<V> {
  #said: number | undefined
  #ids: Id[] = []
  #ready: Promise<void> | undefined
  readonly #partitions = new Map<number, WeakRef<PartitionObject<V>>>()

  constructor(readonly name: string, partitions: number | undefined, readonly host: MapHost) {
    if (typeof name !== 'string' || name === '') throw new TypeError('heap.map(name): name is a string that is not empty')
    this.sayPartitions(partitions)
    this.ready().catch(() => {})
  }

  /** The number a program expects; it has to be the one that is stored. */
  sayPartitions(partitions: number | undefined): void {
    if (partitions === undefined) return
    if (!(Number.isInteger(partitions) && partitions >= 1 && partitions <= PARTITIONS_MAX)) throw new RangeError(`partitions: a whole number from 1 to ${PARTITIONS_MAX}, not ${String(partitions)}`)
    if (this.#said !== undefined && this.#said !== partitions) throw this.#conflict(this.#said, partitions)
    this.#said = partitions
  }

  /** How many partitions there are; before the map was reached once, how many there are expected to be. */
  get count(): number {
    const stored = this.#stored
    if (stored === undefined) return this.#said ?? PARTITIONS_DEFAULT
    if (this.#said !== undefined && this.#said !== stored) throw this.#conflict(stored, this.#said)
    return stored
  }

  get #meta(): Segment | undefined {
    const id = this.#ids[0]
    return id === undefined ? undefined : this.host.space.segment(id)
  }

  get #stored(): number | undefined {
    const stored = this.#meta?.rootMap?.bag['partitions']
    return typeof stored === 'number' && Number.isInteger(stored) && stored >= 1 && stored <= PARTITIONS_MAX ? stored : undefined
  }

  #conflict(stored: number, said: number): HeapError {
    return new HeapError('ERR_CONFLICT', `the map ${JSON.stringify(this.name)} has ${stored} partitions, not ${said}: all programs have to agree on the number`, { details: { map: this.name, stored, said } })
  }

  /** Loads the meta segment, which stays. */
  ready(wait?: Wait): Promise<void> {
    if (this.#ready === undefined) {
      this.#ids = this.#derive(1)
      const meta = this.#meta!
      meta.pins += 1
      const loaded = this.host.space.load([meta.id], true)
      this.#ready = loaded
      loaded.then(() => this.#guardCount(meta), () => {
        meta.pins -= 1
        this.#ready = undefined
      })
    }
    if (wait === undefined || this.#meta!.standing === 'here') return this.host.alive(this.#ready)
    return this.host.alive(this.host.space.load([this.#meta!.id], true, wait))
  }

  /** A number that changes under this program is an error, told once. */
  #guardCount(meta: Segment): void {
    const stop = this.host.watchers.tap(commit => {
      if (!commit.touched.has(meta) || this.#said === undefined) return
      const stored = this.#stored
      if (stored === undefined || stored === this.#said) return
      stop()
      const error = this.#conflict(stored, this.#said)
      this.host.watchers.later(() => this.host.report(error))
    })
  }

  #derive(count: number): Id[] {
    return this.host.driver.call(OP.derive, w => w.idOf(ROOT_ID).varint(count).str(`map:${this.name}`)).derived ?? []
  }

  segmentAt(index: number): Segment {
    if (this.#ids.length < this.count + 1) this.#ids = this.#derive(this.count + 1)
    const id = this.#ids[index + 1]
    if (id === undefined) throw new RangeError(`the map ${JSON.stringify(this.name)} has ${this.count} partitions; there is no partition ${index}`)
    return this.host.space.segment(id)
  }

  indexOf(key: string): number {
    return fnv1a(key) % this.count
  }

  // Loading

  async loadAt(indexes: Iterable<number>, wait?: Wait): Promise<Segment[]> {
    await this.ready(wait)
    const segments = [...new Set(indexes)].map(index => this.segmentAt(index))
    const away = segments.filter(segment => segment.standing !== 'here')
    if (away.length > 0) await this.host.alive(this.host.space.load(away.map(segment => segment.id), true, wait))
    for (const segment of segments) this.host.space.touch(segment)
    return segments
  }

  async #rootOf(key: string, wait?: Wait): Promise<MapNode> {
    await this.ready(wait)
    const [segment] = await this.loadAt([this.indexOf(key)], wait)
    return mapOf(segment!)
  }

  /** Makes the number of partitions part of the write that is open. */
  claimCount(): void {
    const meta = this.#meta?.rootMap
    if (meta === undefined) throw new HeapError('ERR_NOT_LOADED', `the map ${JSON.stringify(this.name)} is not loaded`, { details: { refs: this.#meta === undefined ? [] : [this.host.space.refs.of(this.#meta.id)], derived: true } })
    if (this.#stored === undefined) setKey(meta, 'partitions', this.#said ?? PARTITIONS_DEFAULT)
    else void this.count
  }

  // Single keys

  async get(key: string, o?: Wait): Promise<Snapshot<V> | undefined> {
    const value = (await this.#rootOf(key, o)).bag[key]
    return value === undefined ? undefined : snapshotOfStored(value) as Snapshot<V>
  }

  async getMany(keys: Iterable<string>, o?: Wait): Promise<Map<string, Snapshot<V>>> {
    await this.ready(o)
    const order = [...keys]
    const byPartition = groupBy(order, key => this.indexOf(key))
    const found = new Map<string, Snapshot<V>>()
    for (const group of chunks([...byPartition], WALK)) {
      await this.loadAt(group.map(([index]) => index), o)
      for (const [index, wanted] of group) {
        const { bag } = mapOf(this.segmentAt(index))
        for (const key of wanted) if (bag[key] !== undefined) found.set(key, snapshotOfStored(bag[key]) as Snapshot<V>)
      }
    }
    return new Map(order.filter(key => found.has(key)).map(key => [key, found.get(key)!]))
  }

  async has(key: string): Promise<boolean> {
    return (await this.#rootOf(key)).bag[key] !== undefined
  }

  async set(key: string, value: V): Promise<void> {
    const root = await this.#rootOf(key)
    this.claimCount()
    setKey(root, key, value)
  }

  async delete(key: string): Promise<boolean> {
    return deleteKey(await this.#rootOf(key), key)
  }

  async update(key: string, fn: (draft: V | undefined) => V | void): Promise<Snapshot<V> | undefined> {
    const root = await this.#rootOf(key)
    this.host.space.transact(() => {
      const draft = this.presentIn(root, key)
      const result = refuseThenable(fn(draft))
      if (result === undefined) return
      this.claimCount()
      setKey(root, key, result)
    })
    const value = root.bag[key]
    return value === undefined ? undefined : snapshotOfStored(value) as Snapshot<V>
  }

  async add(key: string, n = 1): Promise<number> {
    const root = await this.#rootOf(key)
    if (typeof n !== 'number' || !Number.isFinite(n)) throw new TypeError('map.add(key, n): n is a finite number')
    const value = root.bag[key]
    const counted = typeof value === 'object' && value !== null && 'kind' in value && value.kind === KIND.counter
    if (!counted) {
      if (value !== undefined && typeof value !== 'number') throw new TypeError(`map.add: what is under ${JSON.stringify(key)} does not count`)
      this.claimCount()
      setKey(root, key, counter(value))
    }
    const node = root.bag[key]
    if (typeof node !== 'object' || node === null || !('kind' in node) || node.kind !== KIND.counter) throw new TypeError('map.add: not a counter')
    addToCounter(node, n)
    return node.value
  }

  async live(key: string, o?: Wait): Promise<V | undefined> {
    const root = await this.#rootOf(key, o)
    return this.host.space.liveOfStored(root.bag[key]) as V | undefined
  }

  /** A value as a partition shows it: live, but counters as their number. */
  presentIn(root: MapNode, key: string): V | undefined {
    const value = root.bag[key]
    const counted = typeof value === 'object' && value !== null && 'kind' in value && value.kind === KIND.counter
    return (counted ? value.value : this.host.space.liveOfStored(value)) as V | undefined
  }

  // Many keys

  async setMany(entries: Iterable<readonly [string, V]> | AsyncIterable<readonly [string, V]>, o?: Wait): Promise<void> {
    await this.ready(o)
    const windowMax = Math.min(WINDOW_BYTES_MAX, Math.max(WINDOW_BYTES_MIN, this.host.space.options.budget.bytes / 4))
    let window = new Map<number, [string, V][]>()
    let bytes = 0
    for await (const [key, value] of entries) {
      const index = this.indexOf(key)
      const list = window.get(index)
      if (list === undefined) window.set(index, [[key, value]])
      else list.push([key, value])
      bytes += key.length + roughSize(value)
      if (bytes < windowMax) continue
      await this.#writeWindow(window, o)
      window = new Map()
      bytes = 0
    }
    await this.#writeWindow(window, o)
  }

  async #writeWindow(window: ReadonlyMap<number, readonly [string, V][]>, o?: Wait): Promise<void> {
    for (const group of chunks([...window].sort(([a], [b]) => a - b), WALK)) {
      await this.loadAt(group.map(([index]) => index), o)
      for (const [index, entries] of group) {
        for (const part of bySize(entries)) {
          const root = await this.#roomIn(index, o)
          this.host.space.transact(() => {
            this.claimCount()
            for (const [key, value] of part) setKey(root, key, value)
          })
        }
      }
    }
  }

  /** The map of a partition, to be written at once: waits while the relay is behind. */
  async #roomIn(index: number, o?: Wait): Promise<MapNode> {
    let [segment] = await this.loadAt([index], o)
    // While this one waits, its partition may leave, and others may fill what room there was.
    while (this.#isBehind) {
      await this.host.flush(o)
      segment = (await this.loadAt([index], o))[0]
    }
    return mapOf(segment!)
  }

  get #isBehind(): boolean {
    const { space } = this.host
    return space.writing.unsavedBytes > space.options.maxUnsaved / 2
  }

  async *#walk(wait?: Wait): AsyncGenerator<MapNode> {
    await this.ready(wait)
    for (const group of chunks([...Array(this.count).keys()], WALK)) {
      const segments = await this.loadAt(group, wait)
      for (const segment of segments) {
        if (segment.standing !== 'here') await this.host.space.load([segment.id], true, wait)
        yield mapOf(segment)
      }
    }
  }

  async *entries(o?: Wait & { keys?: false }): AsyncGenerator<readonly [string, Snapshot<V>]> {
    for await (const root of this.#walk(o)) {
      for (const [key, value] of Object.entries(snapshotOf(root) as Record<string, Snapshot<V>>)) yield [key, value] as const
    }
  }

  async *keys(o?: Wait): AsyncGenerator<string> {
    for await (const root of this.#walk(o)) yield* sortedKeys(root)
  }

  async size(o?: Wait): Promise<number> {
    let size = 0
    for await (const root of this.#walk(o)) size += Object.keys(root.bag).length
    return size
  }

  async clear(): Promise<void> {
    await this.ready()
    for (let index = 0; index < this.count; index++) {
      // A commit at a time: what others write meanwhile goes as well, until nothing is left.
      for (;;) {
        const root = await this.#roomIn(index)
        const [part] = bySize(Object.keys(root.bag).map(key => [key, undefined] as const))
        if (part === undefined) break
        this.host.space.transact(() => { for (const [key] of part.slice(0, LIMIT.editsPerCommit)) deleteKey(root, key) })
      }
    }
  }

  // Watching

  async watch(fn: (change: MapChange<V>) => void, o: { keys?: Iterable<string>; partition?: number } = {}): Promise<Disposable> {
    await this.ready()
    const keys = o.keys === undefined ? undefined : new Set(o.keys)
    const indexes = o.partition !== undefined ? [o.partition] : keys === undefined ? [...Array(this.count).keys()] : [...keys].map(key => this.indexOf(key))
    const watched = new Map<Segment, Watched>()
    const stopAll = (): void => {
      for (const { stop } of watched.values()) stop()
      watched.clear()
    }
    try {
      for (const group of chunks([...new Set(indexes)], WALK * 4)) {
        for (const segment of await this.loadAt(group)) {
          const before = snapshotOf(mapOf(segment)) as Record<string, unknown>
          watched.set(segment, { stop: this.host.watchers.observe(segment), before, broken: false })
        }
      }
    } catch (error) {
      stopAll()
      throw error
    }
    let ended = false
    const untap = this.host.watchers.tap(commit => {
      for (const segment of commit.touched) {
        const state = watched.get(segment)
        if (state === undefined) continue
        const changes = this.#guardedChangesIn(segment, state, commit, keys)
        if (changes.length > 0) this.host.watchers.later(() => { for (const change of changes) if (!ended) fn(change) })
      }
    })
    return {
      [Symbol.dispose]: () => {
        ended = true
        untap()
        stopAll()
      },
    }
  }

  /** A partition that somebody made something else of is told once, and stops none of the others. */
  #guardedChangesIn(segment: Segment, state: Watched, commit: VisibleCommit, keys: ReadonlySet<string> | undefined): MapChange<V>[] {
    try {
      const changes = this.#changesIn(segment, state, commit, keys)
      state.broken = false
      return changes
    } catch (error) {
      if (!state.broken) this.host.watchers.later(() => this.host.report(error))
      state.broken = true
      return []
    }
  }

  #changesIn(segment: Segment, state: { before: Record<string, unknown> }, commit: VisibleCommit, keys: ReadonlySet<string> | undefined): MapChange<V>[] {
    const log = commit.touched.has(segment) && segment.mirror !== undefined ? commit.logs.get(segment.mirror) ?? [] : []
    const touched = new Set<string>()
    for (const { path, what } of log) touched.add(String(path.length > 0 ? path[0] : 'key' in what ? what.key : ''))
    if (touched.size === 0) return []
    const before = state.before
    const now = snapshotOf(mapOf(segment)) as Record<string, unknown>
    state.before = now
    return [...touched].filter(key => keys?.has(key) ?? true).filter(key => own(now, key) !== own(before, key)).map(key => ({
      key, value: own(now, key) as Snapshot<V> | undefined, before: own(before, key) as Snapshot<V> | undefined, origin: commit.origin, by: commit.by,
    }))
  }

  // Partitions

  partitionOf(key: string): Partition<V> {
    return this.#ready !== undefined && this.#meta?.standing === 'here' ? this.partition(this.indexOf(key)) : new PartitionObject<V>(this, { ...defaultOptions, key })
  }

  get partitions(): readonly Partition<V>[] {
    return Object.freeze([...Array(this.count).keys()].map(index => this.partition(index)))
  }

  partition(index: number): PartitionObject<V> {
    const known = this.#partitions.get(index)?.deref()
    if (known !== undefined) return known
    const partition = new PartitionObject<V>(this, { ...defaultOptions, index })
    this.#partitions.set(index, new WeakRef(partition))
    return partition
  }

  share(o: ShareOptions = {}): AsyncIterable<Partition<V>> {
    return { [Symbol.asyncIterator]: () => share(this, o) }
  }
}

/** A partition whose changes are told, as it was at the last one. */
interface Watched { readonly stop: () => void; before: Record<string, unknown>; broken: boolean }

/** The map of a loaded partition. */
export function mapOf(segment: Segment): MapNode {
  const root = segment.mirror?.root
  if (root === undefined) throw new HeapError('ERR_NOT_LOADED', 'the partition is not loaded', { details: { refs: [], derived: true } })
  if (root.kind !== KIND.map) throw new HeapError('ERR_CORRUPT', 'the partition of a map holds something else')
  return root
}

/** FNV-1a, 32 bits, over the UTF-8 of a key. */
export function fnv1a(key: string): number {
  let hash = 0x811c9dc5
  for (const byte of encoder.encode(key)) hash = Math.imul(hash ^ byte, 0x01000193)
  return hash >>> 0
}

const encoder = new TextEncoder()

function own(record: Record<string, unknown>, key: string): unknown {
  return Object.hasOwn(record, key) ? record[key] : undefined
}

function groupBy<T, K>(items: readonly T[], keyOf: (item: T) => K): Map<K, T[]> {
  const groups = new Map<K, T[]>()
  for (const item of items) {
    const group = groups.get(keyOf(item))
    if (group === undefined) groups.set(keyOf(item), [item])
    else group.push(item)
  }
  return groups
}

function* chunks<T>(items: readonly T[], size: number): Generator<T[]> {
  for (let i = 0; i < items.length; i += size) yield items.slice(i, i + size)
}

/** Runs of entries that fit into one commit. */
function* bySize<V>(entries: readonly (readonly [string, V])[]): Generator<(readonly [string, V])[]> {
  let part: (readonly [string, V])[] = []
  let bytes = 0
  for (const entry of entries) {
    const size = 64 + entry[0].length * 2 + roughSize(entry[1])
    if (part.length > 0 && bytes + size > COMMIT_BYTES) {
      yield part
      part = []
      bytes = 0
    }
    part.push(entry)
    bytes += size
  }
  if (part.length > 0) yield part
}

/** About how many bytes a value takes, encoded. */
function roughSize(value: unknown, depth = 0): number {
  if (typeof value === 'string') return value.length + 4
  if (typeof value !== 'object' || value === null || depth > 16) return 10
  if (value instanceof Uint8Array) return value.length + 4
  let size = 48
  if (Array.isArray(value)) for (const each of value) size += 32 + roughSize(each, depth + 1)
  else for (const [key, each] of Object.entries(value)) size += 32 + key.length + roughSize(each, depth + 1)
  return size
}
