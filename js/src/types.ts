/**
 * The public types, one doc comment each. What an operation means under concurrency, deletion and failure is decided case
 * by case (S1–S28 of the project's semantics); the comments here say what a caller has to know.
 */

import type { HeapError } from './errors.js'

/** What JSON can hold. */
export type Json = null | boolean | number | string | readonly Json[] | { readonly [k: string]: Json }

/** A number that counts exactly, whoever counts at the same time. `n++` on a plain number loses concurrent increments. */
export interface Counter {
  readonly value: number
  /** Adds `n` (default 1; may be negative). */
  add(n?: number): void
}

/** A string that several processes may edit at once. Indexes are UTF-16; a cut inside a surrogate pair moves to its start. */
export interface Text {
  readonly length: number
  insert(at: number, s: string): void
  delete(at: number, n: number): void
  /** Replaces `n` units at `at` by `s`. */
  splice(at: number, n: number, s: string): void
  /** Makes the text read `s`, changing only the part that differs. */
  update(s: string): void
  /** A position that moves with the text around it. */
  anchor(at: number): Anchor
  toString(): string
}

/** A position in a text that moves with it. */
export interface Anchor {
  /** Where it is now; `undefined` once the text is gone. */
  readonly index: number | undefined
  toString(): string
}

/** A set of plain values; adding and removing at once keeps what was added. Iterates in ascending order. */
export interface LiveSet<T> extends Iterable<T> {
  add(v: T): this
  delete(v: T): boolean
  has(v: T): boolean
  readonly size: number
}

/** A frozen plain copy; unchanged parts keep their identity. */
export type Snapshot<T> = T extends Counter ? number : T extends Text ? string : T extends LiveSet<infer E> ? readonly E[]
  : T extends Date | Uint8Array | Ref<any> ? T : T extends readonly (infer E)[] ? readonly Snapshot<E>[]
  : T extends object ? { readonly [K in keyof T]: Snapshot<T[K]> } : T

/** A durable position of a heap's log: hand it to another process, which waits for it with `heap.reach()`. */
export type Version = string & { readonly __version: unique symbol }

/** How long to wait. */
export interface Wait {
  signal?: AbortSignal
  /** Rejects with `ERR_TIMEOUT` after this time. Default: no limit. */
  timeoutMs?: number
}

/** Options of {@link open}. */
export interface OpenOptions<Root> {
  /** What the relay asks for, or how to get it; asked again at each connection. */
  token?: string | ((ctx: { reason: 'connect' | 'refresh' }) => string | Promise<string>)
  /** `false`: reject with `ERR_NOT_FOUND` if nothing was ever written to this heap. Default `true`. */
  create?: boolean
  /** Content of the keys of the root that are absent, written once it is loaded. Any real write wins over it. */
  initial?: Partial<Root>
  /** How much of the heap to keep here: bytes, `'64mb'`, or one from {@link createBudget}. Default 256 MB. */
  budget?: number | `${number}${'kb' | 'mb' | 'gb'}` | Budget
  /** Bytes of unacknowledged edits above which writes throw `ERR_UNSAVED_LIMIT`. Default: a quarter of the budget. */
  maxUnsaved?: number
  /** How others see this replica, in `by.name` and presence. */
  name?: string
  /** Rejects with `ERR_TIMEOUT` if the heap is not open by then. Default 30,000. */
  timeoutMs?: number
  signal?: AbortSignal
  /** Makes the sockets: for a proxy, a private CA, headers. Default: `ws` in Node.js, the global one elsewhere. */
  webSocket?: (url: string, protocols: string[]) => WebSocketLike
}

/** As much of a WebSocket as coheap uses. */
export interface WebSocketLike {
  binaryType: string
  send(b: Uint8Array): void
  close(code?: number, reason?: string): void
  addEventListener(t: string, f: (e: any) => void): void
  readonly bufferedAmount: number
}

/** A budget that several heaps share. */
export interface Budget { readonly bytes: number }

/** Where a heap stands. */
export interface Status {
  connection: 'connecting' | 'online' | 'offline' | 'closed'
  /** Commits that are not durable at the relay yet. */
  unsaved: number
  /** For how long the oldest of them has waited. */
  unsavedMs: number
  /** Round trip to the relay: of the hello, then of the last Ping (one every 15 s). `undefined` before the first session. */
  rttMs: number | undefined
  /** Estimate of the memory that loaded segments take. */
  residentBytes: number
  segments: number
}

/** The events of a heap and what they carry. */
export interface HeapEvents {
  status: Status
  error: HeapError
  /** The relay refused a commit of this replica; it was undone here. */
  refused: { code: string; label?: string; paths: string[] }
  /**
   * A segment could not be read: what is held of it keeps its last values, loads and writes fail with `ERR_QUARANTINED`. The relay is
   * asked to look at it; once it can be read again, a load succeeds and what is held goes on.
   */
  quarantine: { ref: Ref<object>; reason: string }
  /** Segments left memory; their refs can be loaded again. */
  evicted: { refs: Ref<object>[] }
  /** The relay's log began a new life. */
  epoch: { from: string; to: string }
}

/** Makes an async function a type error where a synchronous one is needed. */
export type NotThenable<R> = R extends PromiseLike<any> ? never : R

/** One open heap: a replica of its own. */
export interface Heap<Root> extends AsyncDisposable {
  readonly root: Root
  readonly replica: string
  readonly status: Status
  /**
   * Makes an object in a segment of its own and returns the pointer to it. With `history` the segment keeps all it ever held;
   * such segments need a larger wasm module, which is fetched when the first of them is met. What is written meanwhile is
   * visible here at once and committed, in its order, when the module is there.
   *
   * `near`: in the segment of that object instead, so that they load and leave together; it has to be loaded
   * (ERR_NOT_LOADED), and where it has grown over 8 MiB a new segment is made.
   */
  alloc<T extends object>(value: T, where?: { history?: boolean; near?: Ref<any> }): Ref<T>
  /** The pointer that was printed as `id`. Loads nothing; the same id gives the same Ref. */
  ref<T extends object>(id: string): Ref<T>
  /** The pointer to a live object. */
  refOf<T extends object>(live: T): Ref<T>
  /** Runs `fn` as one commit. Synchronous; a throw undoes all. */
  transact<R>(fn: () => NotThenable<R>, o?: { label?: string }): R
  /** As `transact`, but loads what `fn` finds missing and runs it again: `fn` must have no other effects. */
  run<R>(fn: () => NotThenable<R>, o?: Wait & { label?: string }): Promise<R>
  /** Waits until all that was written here is durable at the relay. */
  flush(o?: Wait): Promise<Version>
  /** Waits until everything the relay had accepted is visible here. */
  sync(o?: Wait): Promise<Version>
  /** Waits for a durable position that covers all written and seen here. */
  version(o?: Wait): Promise<Version>
  /** Waits until everything at a version is visible here. */
  reach(v: Version | string, o?: Wait): Promise<void>
  /** Follows an expression over live objects and calls `fn` when its result changes. */
  watch<V>(select: () => V, fn: (v: V, before: V | undefined) => void, o?: { initial?: boolean; equals?: (a: V, b: V) => boolean }): Disposable
  /** Tells of each commit that changes an object, in a microtask after it. */
  watch<T extends object>(target: T | Ref<T> | Iterable<Ref<T>>, fn: (c: Change<T>) => void, o?: WatchOptions): Disposable
  /** The same as an iterator. */
  changes<T extends object>(target: T | Ref<T>, o?: WatchOptions & { buffer?: 'latest' | number; signal?: AbortSignal }): AsyncIterableIterator<Change<T>> & AsyncDisposable
  /** A map of any size, in partitions that load and leave on their own. */
  map<V>(name: string, o?: { partitions?: number }): BigMap<V>
  load<T extends object>(refs: Iterable<Ref<T>>, o?: Wait): Promise<T[]>
  /** Keeps a segment here until disposed. */
  pin(ref: Ref<any>): Disposable
  /** Lets go of what is not held, pinned or unsaved, down to a number of bytes. */
  evict(o?: { toBytes?: number }): Promise<{ residentBytes: number; segments: number }>
  presence<P extends object>(group?: string): Presence<P>
  /** Asks the relay for "mine to work on"; `undefined` if another has it. */
  claim(ref: Ref<any>, o?: Wait): Promise<Claim | undefined>
  stats(): HeapStats
  addEventListener<K extends keyof HeapEvents>(type: K, fn: (e: HeapEvents[K]) => void, o?: { signal?: AbortSignal; once?: boolean }): void
  removeEventListener<K extends keyof HeapEvents>(type: K, fn: (e: HeapEvents[K]) => void): void
  /** Lets the process end although the heap is open. */
  unref(): this
  /** Waits for what is unsaved (default 5,000 ms) and ends. Rejects with `ERR_UNSAVED` if some is left. */
  close(o?: { flush?: boolean; timeoutMs?: number }): Promise<void>
}

/** A pointer to an object, storable as a value anywhere in the heap. */
export interface Ref<T extends object> {
  /** `coheap:<segment>` or `coheap:<segment>#<object>`. */
  readonly id: string
  readonly heap: string
  /** The object if it is loaded, else `undefined`. Throws for what is deleted, missing, forbidden or quarantined. */
  peek(): T | undefined
  /** The object; throws ERR_NOT_LOADED when not resident. Inside heap.run() that loads it and runs again. */
  readonly value: T
  load(o?: Wait): Promise<T>
  toJSON(): { $ref: string }
}

/** "Mine to work on", until released or lost. Presence, not a lock. */
export interface Claim extends AsyncDisposable {
  readonly lost: AbortSignal
  release(): void
}

/** Options of `watch` and `changes`. */
export interface WatchOptions {
  /** `false`: only changes of the object itself, not of what it holds. Default `true`. */
  deep?: boolean
  /** Also tell the state at the call. */
  initial?: boolean
  /** `false`: leave out the changes made here. Default `true`. */
  local?: boolean
  signal?: AbortSignal
}

/** What happened at one place. */
export type Patch = { op: 'set'; path: Path; value: unknown; before: unknown } | { op: 'delete'; path: Path; before: unknown }
  | { op: 'insert'; path: Path; index: number; values: unknown[] } | { op: 'remove'; path: Path; index: number; values: unknown[] }
  | { op: 'move'; path: Path; from: number; to: number } | { op: 'add'; path: Path; by: number } | { op: 'splice'; path: Path; index: number; removed: number; text: string }
/** Keys and indexes from the watched object down. */
export type Path = readonly (string | number)[]

/** Who made a commit. */
export interface Author { replica: string; name?: string; subject?: string }

/** What one commit did to a watched object. */
export interface Change<T> {
  readonly target: T
  readonly patches: readonly Patch[]
  readonly origin: 'local' | 'remote'
  readonly by: Author
  readonly label?: string
  /** The object was deleted or replaced; no more changes follow. */
  readonly detached: boolean
  version(): Promise<Version>
}

/** What each member of a group shows of itself, while it is connected. */
export interface Presence<P extends object> {
  /** The replica id of this one. */
  readonly me: string
  set(state: P): void
  update(part: Partial<P>): void
  clear(): void
  readonly members: ReadonlyMap<string, Member<P>>
  watch(fn: (m: ReadonlyMap<string, Member<P>>) => void): Disposable
}

/** One member of a presence group. */
export interface Member<P> { readonly state: Readonly<P>; readonly author: Author; readonly sinceMs: number }

/** A map of any size, split over partitions that load and leave on their own. */
export interface BigMap<V> {
  get(key: string, o?: Wait): Promise<Snapshot<V> | undefined>
  getMany(keys: Iterable<string>, o?: Wait): Promise<Map<string, Snapshot<V>>>
  has(key: string): Promise<boolean>
  set(key: string, value: V): Promise<void>
  delete(key: string): Promise<boolean>
  /** Writes many entries, one commit per partition and megabyte, waiting when the relay is behind. */
  setMany(entries: Iterable<readonly [string, V]> | AsyncIterable<readonly [string, V]>, o?: Wait): Promise<void>
  /** Runs `fn` once, here, on a draft, as one commit. What it returns replaces the value. Count with `add`. */
  update(key: string, fn: (draft: V | undefined) => V | void): Promise<Snapshot<V> | undefined>
  /** Adds to the counter under the key and gives its value as seen here. */
  add(key: string, n?: number): Promise<number>
  /** The live value: holding it keeps its partition loaded. */
  live(key: string, o?: Wait): Promise<V | undefined>
  entries(o?: Wait & { keys?: false }): AsyncIterable<readonly [string, Snapshot<V>]>
  keys(o?: Wait): AsyncIterable<string>
  size(o?: Wait): Promise<number>
  clear(): Promise<void>
  watch(fn: (c: MapChange<V>) => void, o?: { keys?: Iterable<string>; partition?: number }): Promise<Disposable>
  partitionOf(key: string): Partition<V>
  readonly partitions: readonly Partition<V>[]
  /** Hands out the partitions among all that call this, each to one worker at a time, until all are done. */
  share(o?: { group?: string; run?: string; signal?: AbortSignal }): AsyncIterable<Partition<V>>
}

/** What one commit did to one key of a map. */
export interface MapChange<V> {
  readonly key: string
  readonly value: Snapshot<V> | undefined
  readonly before: Snapshot<V> | undefined
  readonly origin: 'local' | 'remote'
  readonly by: Author
}

/** One partition. After load() its methods are synchronous and may be used inside transact. */
export interface Partition<V> {
  readonly index: number
  readonly loaded: boolean
  readonly size: number
  load(o?: Wait): Promise<this>
  get(key: string): V | undefined
  set(key: string, value: V): void
  delete(key: string): boolean
  entries(): IterableIterator<[string, V]>
  /** Says that the work on this partition is done, in the open transaction or as a commit of its own. */
  done(): void
}

/** How one segment is here. */
export interface SegmentStats {
  /** Its first object, as a Ref's `id`. */
  readonly ref: string
  /** `live`: its document is decoded. `packed`: it is bytes, and decoded when it is written, or when what comes to it is to be shown. */
  readonly residence: 'live' | 'packed'
  /** Whether it is shown: its values are here as JavaScript. One that is not gets them when it is read, without asking the relay. */
  readonly mirror: boolean
  /** Encoded bytes. */
  readonly bytes: number
}

/** Figures of one heap. */
export interface HeapStats {
  bytes: { live: number; packed: number; wasm: number; mirrors: number; held: number; queued: number; pinned: number; budget: number }
  /** How each segment is here. Gathered when it is read, at one object a segment. */
  readonly segments: readonly SegmentStats[]
  loads: number
  evictions: number
  rebuilds: number
  deltasIn: number
  deltasOut: number
  bytesIn: number
  bytesOut: number
  commits: number
  refused: number
  quarantined: number
}
