/**
 * Watching: listeners that are told of commits, in a microtask after each.
 *
 * Three forms. A *target* is an object: its watcher is told once per commit that changed it, with patches as seen from it,
 * and a last time when it was deleted or replaced (S28). A *selector* is an expression over live objects: it is evaluated
 * again after commits, and its watcher is told when the result differs. A *tap* is the package's own: told of every commit.
 * What a change says is gathered when the commit becomes visible, so later commits do not blur it; calling the listeners
 * comes after, and what they write is the next commit.
 */

import { HeapError } from './errors.js'
import { isAttached, isNode, type Logged, type Node } from './mirror.js'
import { liveOf } from './proxy.js'
import { HeapRef } from './refs.js'
import { sameSnapshot, snapshotOf } from './snapshot.js'
import { nodeOf } from './symbols.js'
import type { Segment } from './residence.js'
import type { Space, VisibleCommit } from './space.js'
import type { Change, Patch, Path, Version, WatchOptions } from './types.js'

interface Target {
  readonly node: Node
  readonly segment: Segment
  readonly live: object
  readonly fn: (change: Change<object>) => void
  readonly options: WatchOptions
  ended: boolean
}

interface Selector {
  readonly select: () => unknown
  readonly fn: (value: unknown, before: unknown) => void
  readonly equals: ((a: unknown, b: unknown) => boolean) | undefined
  value: unknown
  image: unknown
  /** Segments that it has read: their mirrors stay, so that it is told of what comes to them. */
  reads: Set<Segment>
  ended: boolean
}

export class Watchers {
  readonly #targets = new Map<Segment, Set<Target>>()
  readonly #selectors = new Set<Selector>()
  readonly #taps = new Set<(commit: VisibleCommit) => void>()
  #queue: (() => void)[] = []
  #scheduled = false
  #evaluate = false

  constructor(readonly space: Space, readonly versionOf: () => Promise<Version>, readonly report: (error: unknown) => void) {}

  /** A commit became visible. */
  visible(commit: VisibleCommit): void {
    for (const tap of this.#taps) this.#guardNow(() => tap(commit))
    for (const segment of commit.touched) {
      const log = (segment.mirror && commit.logs.get(segment.mirror)) ?? []
      for (const target of this.#targets.get(segment) ?? []) this.#guardNow(() => this.#gather(target, commit, log))
    }
    if (this.#selectors.size > 0) this.#evaluate = true
    if (this.#evaluate || this.#queue.length > 0) this.#schedule()
  }

  /** Told of every commit, at once; must only take notes. */
  tap(fn: (commit: VisibleCommit) => void): () => void {
    this.#taps.add(fn)
    return () => this.#taps.delete(fn)
  }

  /** Runs `fn` among the listeners of the commits until now. */
  later(fn: () => void): void {
    this.#queue.push(fn)
    this.#schedule()
  }

  /** Switches the log of a segment on; the result switches it off. */
  observe(segment: Segment): () => void {
    if (!this.space.inTransact) this.space.writing.commitPendingReporting()
    segment.watchers += 1
    if (segment.mirror !== undefined) segment.mirror.log ??= []
    let done = false
    return () => {
      if (done) return
      done = true
      segment.watchers -= 1
      if (segment.watchers === 0 && segment.mirror !== undefined) segment.mirror.log = undefined
    }
  }

  #gather(target: Target, commit: VisibleCommit, log: readonly Logged[]): void {
    if (target.ended) return
    const detached = !isAttached(target.node)
    const patches: Patch[] = []
    for (const { chain, path, what } of log) {
      const depth = chain.indexOf(target.node)
      if (depth < 0 || (target.options.deep === false && depth !== chain.length - 1)) continue
      patches.push(patchOf(path.slice(depth), what))
    }
    if (detached) this.#end(target)
    if (patches.length === 0 && !detached) return
    if (commit.origin === 'local' && target.options.local === false && !detached) return
    this.#tell(target, { patches, origin: commit.origin, by: commit.by, label: commit.label, detached })
  }

  #tell(target: Target, told: Pick<Change<object>, 'patches' | 'origin' | 'by' | 'detached'> & { label: string }): void {
    const { label, ...rest } = told
    const change: Change<object> = { target: target.live, ...rest, ...(label === '' ? {} : { label }), version: this.versionOf }
    this.#queue.push(() => {
      if (!target.ended || told.detached) target.fn(change)
    })
    this.#schedule()
  }

  #end(target: Target): void {
    target.ended = true
    const targets = this.#targets.get(target.segment)
    targets?.delete(target)
    if (targets?.size === 0) this.#targets.delete(target.segment)
    this.#stops.get(target)?.()
    this.#stops.delete(target)
  }

  readonly #stops = new WeakMap<Target, () => void>()

  watchNode(node: Node, fn: (change: Change<object>) => void, options: WatchOptions): () => void {
    const segment = this.space.segmentOf(node)
    if (segment === undefined || !isAttached(node)) throw new HeapError('ERR_DELETED', 'this object was deleted or replaced: there is nothing to watch')
    const stop = this.observe(segment)
    const target: Target = { node, segment, live: liveOf(node), fn, options, ended: false }
    this.#stops.set(target, stop)
    let targets = this.#targets.get(segment)
    if (targets === undefined) this.#targets.set(segment, (targets = new Set()))
    targets.add(target)
    if (options.initial === true) {
      const patches: Patch[] = [{ op: 'set', path: [], value: snapshotOf(node), before: undefined }]
      this.#tell(target, { patches, origin: 'local', by: this.space.options.me, label: '', detached: false })
    }
    return () => { if (!target.ended) this.#end(target) }
  }

  /** Watches a Ref: loads it first if it is not here. */
  watchRef(ref: HeapRef, fn: (change: Change<object>) => void, options: WatchOptions): () => void {
    let stop: (() => void) | undefined
    let ended = false
    const begin = (): void => {
      if (!ended) stop = this.watchNode(this.space.resolve(ref), fn, options)
    }
    if (ref.peek() !== undefined) begin()
    else this.space.load([ref.segment], false).then(begin).catch((error: unknown) => { if (!ended) this.report(error) })
    return () => {
      ended = true
      stop?.()
    }
  }

  select(select: () => unknown, fn: (value: unknown, before: unknown) => void, options: { initial?: boolean; equals?: (a: unknown, b: unknown) => boolean }): () => void {
    if (!this.space.inTransact) this.space.writing.commitPendingReporting()
    const selector: Selector = { select, fn, equals: options.equals, value: undefined, image: undefined, reads: new Set(), ended: false }
    try {
      const { value, image } = this.#read(selector)
      Object.assign(selector, { value, image })
    } catch (error) {
      this.#release(selector)
      throw error
    }
    const { value } = selector
    this.#selectors.add(selector)
    if (options.initial === true) this.later(() => { if (!selector.ended) fn(value, undefined) })
    return () => {
      if (selector.ended) return
      selector.ended = true
      this.#selectors.delete(selector)
      this.#release(selector)
    }
  }

  /** Evaluates an expression, and holds what it reads until the next time. */
  #read(selector: Selector): { value: unknown; image: unknown } {
    const { space } = this
    const [outer, before] = [space.reads, selector.reads]
    const reads = new Set<Segment>()
    space.reads = reads
    try {
      const value = selector.select()
      return { value, image: imageOf(value) }
    } finally {
      space.reads = outer
      for (const segment of reads) {
        segment.readers += 1
        outer?.add(segment)
      }
      selector.reads = reads
      for (const segment of before) segment.readers -= 1
    }
  }

  #release(selector: Selector): void {
    for (const segment of selector.reads) segment.readers -= 1
    selector.reads = new Set()
  }

  #schedule(): void {
    if (this.#scheduled) return
    this.#scheduled = true
    queueMicrotask(() => this.#run())
  }

  #run(): void {
    this.#scheduled = false
    const queue = this.#queue
    this.#queue = []
    for (const call of queue) this.#guard(call)
    if (!this.#evaluate) return
    this.#evaluate = false
    for (const selector of [...this.#selectors]) this.#guard(() => this.#reselect(selector))
  }

  #reselect(selector: Selector): void {
    if (selector.ended) return
    let read: { value: unknown; image: unknown }
    try {
      read = this.#read(selector)
    } catch (error) {
      if (!(error instanceof HeapError) || error.code !== 'ERR_NOT_LOADED') throw error
      const refs = error.details['refs'] as readonly HeapRef[]
      this.space.load(refs.map(ref => ref.segment), false).then(() => this.later(() => this.#reselect(selector))).catch(this.report)
      return
    }
    const { value, image } = read
    const before = nodeOf(selector.value) === undefined ? selector.value : selector.image
    const same = selector.equals === undefined ? sameSnapshot(image, selector.image) : selector.equals(value, before)
    selector.value = value
    selector.image = image
    if (!same) selector.fn(value, before)
  }

  /** As `#guard`, in the middle of a commit's being applied: the error is told with the commit. */
  #guardNow(call: () => void): void {
    try {
      call()
    } catch (error) {
      this.later(() => this.report(error))
    }
  }

  #guard(call: () => void): void {
    try {
      call()
    } catch (error) {
      this.report(error)
    }
  }
}

/** What a value looked like: live objects as snapshots, in plain arrays and objects too. */
function imageOf(value: unknown, depth = 0): unknown {
  const node = nodeOf(value)
  if (node !== undefined) return isNode(node) ? snapshotOf(node) : value
  if (depth > 8 || typeof value !== 'object' || value === null || value instanceof HeapRef || Object.isFrozen(value)) return value
  if (Array.isArray(value)) return value.map(each => imageOf(each, depth + 1))
  if (Object.getPrototypeOf(value) !== Object.prototype) return value
  return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, imageOf(each, depth + 1)]))
}

function patchOf(path: Path, what: Logged['what']): Patch {
  if (what.op === 'set') return { op: 'set', path: [...path, what.key], value: what.value, before: what.before }
  if (what.op === 'delete') return { op: 'delete', path: [...path, what.key], before: what.before }
  return { ...what, path }
}

const BUFFERED_MAX = 10_000

/** `changes()`: a watch that is read as an iterator. */
export class ChangeStream<T extends object> implements AsyncIterableIterator<Change<T>>, AsyncDisposable {
  #waiting: ((result: IteratorResult<Change<T>>) => void)[] = []
  #buffer: Change<T>[] = []
  #overrun = false
  #ended = false
  readonly #stop: () => void

  constructor(watch: (fn: (change: Change<T>) => void) => () => void, readonly options: { buffer?: 'latest' | number; signal?: AbortSignal }) {
    this.#stop = watch(change => this.#push(change))
    options.signal?.addEventListener('abort', () => this.#finish(), { once: true })
    if (options.signal?.aborted === true) this.#finish()
  }

  #push(change: Change<T>): void {
    if (this.#ended) return
    const reader = this.#waiting.shift()
    if (reader !== undefined) reader({ value: change, done: false })
    else {
      const max = this.options.buffer === 'latest' ? 1 : this.options.buffer ?? BUFFERED_MAX
      if (this.#buffer.length >= max) {
        this.#buffer.shift()
        this.#overrun = this.options.buffer !== 'latest'
      }
      this.#buffer.push(change)
    }
    if (change.detached) this.#finish()
  }

  #finish(): void {
    if (this.#ended) return
    this.#ended = true
    this.#stop()
    for (const reader of this.#waiting) reader({ value: undefined, done: true })
    this.#waiting = []
  }

  next(): Promise<IteratorResult<Change<T>>> {
    if (this.#overrun) {
      this.#finish()
      this.#buffer = []
      this.#overrun = false
      return Promise.reject(new HeapError('ERR_OVER_BUDGET', 'changes came faster than they were read: give changes() a larger `buffer`, or \'latest\''))
    }
    const change = this.#buffer.shift()
    if (change !== undefined) return Promise.resolve({ value: change, done: false })
    if (this.#ended) return Promise.resolve({ value: undefined, done: true })
    return new Promise(resolve => this.#waiting.push(resolve))
  }

  return(): Promise<IteratorResult<Change<T>>> {
    this.#buffer = []
    this.#finish()
    return Promise.resolve({ value: undefined, done: true })
  }

  [Symbol.asyncIterator](): this {
    return this
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.return()
  }
}
