// One random program: 2–5 replicas over a relay in memory, through the real engine, in a fixed world. One number decides the
// whole run, also when each message is delivered, what a cut connection loses, when the full module is there, and which calls
// into wasm trap.
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { OP } from '../src/edge.js'
import { HeapError, open, snapshot, type Heap } from '../src/index.js'
import { closeClean, expecting } from './clean.js'
import { FakeRelay, FakeSocket } from './fake-relay.js'
import { chance, FixedWorld, settled, type Pick } from './fixed.js'
import { Traps } from './traps.js'
import { act, drawKind, KINDS, printable, reachable, seen, values, type Any, type Kind } from './program.js'

const STEPS = 300

/** What programs were made of. */
export class Statistics {
  readonly kinds = new Map<Kind, number>(KINDS.map(kind => [kind, 0]))
  steps = 0
  commits = 0
  /** Commits made while another replica had commits that this one had not seen. */
  concurrent = 0
  /** Cut connections that something was lost with, commits that were sent again although the log had them, segments let go. */
  losses = 0
  again = 0
  evictions = 0
  /** Segments that were bytes alone after a step that was to pack some. */
  packed = 0
  /** Containers that were told to be lost to another kind. */
  overruled = 0
  /** Reconnections at which whole segments were given anew. */
  catchUps = 0
  /** Programs at whose start the full module was not there, and commits that were held until it came. */
  without = 0
  held = 0
  /** Heaps that were told that it could not be fetched. */
  failures = 0
  /** Calls that trapped, and those of them that made a commit, which was undone. */
  traps = 0
  trappedCommits = 0
  /** Values in final documents, and in their root segments, one number a program. */
  readonly values: number[] = []
  readonly roots: number[] = []
}

/** What decides over the full module: it arrives, or the attempt that is under way to fetch it fails. */
export interface Arrival { arrive(): void; fail(): void }

/** A replica and its newest connection, if there was one yet. */
interface Peer { heap: Heap<Any>; socket: FakeSocket | undefined; /** Traps it told of. */ traps: number; /** Nothing is delivered to or from it before this step. */ awayUntil: number }

export class Program {
  readonly relay = new FakeRelay()
  readonly peers: Peer[] = []
  readonly #pick: Pick
  readonly #world: FixedWorld
  readonly #traps = new Traps()
  readonly #statistics: Statistics
  /** What is told beside creations that another kind won over. */
  readonly #errors: unknown[] = []
  readonly #trace = createHash('sha256')
  /** How often of 6 times a step finds that the network was quick, and all that was sent has arrived everywhere. */
  readonly #quick: number
  /** The full module is not there before this step. */
  readonly #arrivesAt: number
  readonly #module: Arrival | undefined
  /** At this step an attempt to fetch it fails; who waits for it is told, and no one else. */
  readonly #failsAt: number
  #at = 0
  /** Waits, loads and writes under way. */
  #pending = 0

  /** `module`: the full module is not there, and this decides when it is. Without it the module has been fetched. */
  constructor(seed: number, statistics: Statistics, module?: Arrival) {
    this.#pick = chance(seed)
    this.#world = new FixedWorld(seed)
    this.#statistics = statistics
    this.relay.pumped = true
    // Decided apart from the rest of the run. Now and then two traps come close together; a third of them wait for a commit.
    const gap = chance(seed + 1_000_000)
    let next = 200 + gap(400)
    let inCommit = false
    this.#traps.plan = ({ n, op }) => {
      if (n < next || (inCommit && op !== OP.commit)) return undefined
      inCommit = gap(3) === 0
      next = n + (gap(4) === 0 ? 1 + gap(12) : 300 + gap(1500))
      return gap(2) === 0 ? 'before' : 'after'
    }
    this.relay.catchUpBehind = [1, 10, Infinity][seed % 3]!
    this.#quick = [0, 0, 1, 3][seed % 4]!
    this.#module = module
    this.#arrivesAt = module === undefined ? -1 : 20 + this.#pick(STEPS - 40)
    this.#failsAt = module === undefined || this.#pick(2) === 0 ? -1 : this.#pick(this.#arrivesAt)
    if (module !== undefined) statistics.without += 1
  }

  async run(): Promise<string> {
    try {
      for (let n = 2 + this.#pick(4); n > 0; n--) await this.#open()
      for (; this.#at < STEPS; this.#at++) await this.#step()
      for (const peer of this.peers) peer.awayUntil = 0
      await this.#meet()
      return this.#trace.digest('hex')
    } finally {
      this.#traps.end()
      this.#world.end()
    }
  }

  async #open(): Promise<Heap<Any>> {
    const peer = { awayUntil: 0, traps: 0 } as Peer
    this.peers.push(peer)
    const opening = open<Any>('ws://test/heap/h', { webSocket: () => (peer.socket = new FakeSocket(this.relay)), initial: { refs: [], doc: {} }, timeoutMs: Infinity })
    peer.heap = await this.#driven(opening)
    peer.heap.addEventListener('error', error => {
      if (isTrap(error)) {
        peer.traps += 1
        this.#statistics.traps += 1
        if (error.details['during'] === 'commit') this.#statistics.trappedCommits += 1
      } else if (error.code === 'ERR_CONFLICT' && 'lost' in error.details) this.#statistics.overruled += 1
      else this.#errors.push(error)
      if (error.code === 'ERR_ENGINE' && !isTrap(error)) this.#statistics.failures += 1
    })
    return peer.heap
  }

  /** The full module is there: replicas that waited for it move, and commit what they held. */
  async #moduleArrives(): Promise<void> {
    await settled()
    const commits = (): number => this.peers.reduce((sum, { heap }) => sum + heap.stats().commits, 0)
    const before = commits()
    this.#module!.arrive()
    await settled()
    this.#statistics.held += commits() - before
  }

  /** It cannot be fetched: what waited for it is undone and told. */
  async #moduleFails(): Promise<void> {
    await settled()
    assert.deepEqual(this.#errors, [])
    this.#module!.fail()
    await settled()
    for (const error of this.#errors.splice(0)) assert.deepEqual([(error as HeapError).code, (error as HeapError).retryable], ['ERR_ENGINE', true])
  }

  async #step(): Promise<void> {
    if (this.#at === this.#failsAt) await this.#moduleFails()
    if (this.#at === this.#arrivesAt) await this.#moduleArrives()
    const kind = drawKind(this.#pick)
    const delivering = kind === 'deliver up' || kind === 'deliver down'
    const able = this.peers.filter(peer => !delivering || peer.awayUntil <= this.#at)
    const peer = able[this.#pick(able.length)] ?? this.peers[0]!
    this.#world.pass(1 + this.#pick(40))
    if (this.#pick(6) < this.#quick) await this.#deliverAll()
    await settled()
    const commits = peer.heap.stats().commits
    const concurrent = !delivering && this.#missesSomething(peer.heap)
    const did = this.#act(kind, peer)
    await settled()
    if (!delivering) {
      // What a step writes once it has loaded something is made by the delivery that brings it: that is not counted.
      const made = peer.heap.stats().commits - commits
      this.#statistics.commits += made
      if (concurrent) this.#statistics.concurrent += made
    }
    assert.deepEqual(this.#errors, [])
    this.#statistics.steps += 1
    this.#statistics.kinds.set(did, this.#statistics.kinds.get(did)! + 1)
    this.#trace.update(`${did} ${this.peers.indexOf(peer)} ${this.relay.log.length} `)
  }

  #act(kind: Kind, peer: Peer): Kind {
    const { heap, socket } = peer
    assert.ok(socket !== undefined)
    if (kind === 'deliver up' || kind === 'deliver down') {
      const most = peer.awayUntil > this.#at ? 0 : this.#pick(3) === 0 ? Infinity : 1 + this.#pick(6)
      for (let n = 0; n < most && socket.pump(kind === 'deliver up' ? 'up' : 'down'); n++);
      return kind
    }
    if (kind === 'disconnect') {
      // What was under way to the relay may have arrived, and only the answers be lost: then it will be sent again.
      if (this.#pick(2) === 0) while (socket.pump('up'));
      if (socket.up.length + socket.down.length > 0) this.#statistics.losses += 1
      socket.cut(1006)
      if (this.#pick(2) === 0) peer.awayUntil = this.#at + 5 + this.#pick(25)
      return kind
    }
    if (kind === 'evict' || kind === 'pack') this.#world.collect()
    let doing: ReturnType<typeof act>
    try {
      doing = act(kind, heap, this.#pick)
    } catch (error) {
      // Undone, all of it.
      if (!isTrap(error) && !isTrap((error as { actual?: unknown }).actual)) throw error
      return kind
    }
    const { kind: did, pending } = doing
    if (kind === 'pack') this.#statistics.packed += heap.stats().segments.filter(({ residence }) => residence === 'packed').length
    if (pending !== undefined) {
      this.#pending += 1
      void pending.catch((error: unknown) => { if (!isTrap(error)) this.#errors.push(error) }).finally(() => { this.#pending -= 1 })
    }
    return did
  }

  /** Whether another replica has commits that this one has not seen. */
  #missesSomething(heap: Heap<Any>): boolean {
    const { log, seen } = this.relay
    const others = this.peers.filter(peer => peer.heap !== heap)
    const unsent = others.some(({ heap: other }) => other.stats().commits > log.filter(entry => entry.author.replica === other.replica).length)
    return unsent || log.slice(seen.get(heap.replica) ?? 0).some(entry => entry.author.replica !== heap.replica)
  }

  async #deliverAll(): Promise<void> {
    for (let some = true; some;) {
      await settled()
      some = false
      for (const { socket, awayUntil } of this.peers) while (awayUntil <= this.#at && (socket?.pump('up') || socket?.pump('down'))) some = true
    }
  }

  /** Delivers all there is until a promise is kept. */
  async #driven<T>(promise: Promise<T>): Promise<T> {
    let kept = false
    void promise.finally(() => { kept = true }).catch(() => {})
    for (let i = 0; i < 1000; i++) {
      await settled()
      if (kept) return promise
      this.#world.pass(20)
      await this.#deliverAll()
    }
    throw new Error('it never ends')
  }

  /** All see everything: then all hold the same. */
  async #meet(): Promise<void> {
    for (let i = 0; this.#pending > 0; i++) {
      assert.ok(i < 100, `${this.#pending} waits never end`)
      await this.#driven(Promise.resolve())
      await this.#driven(this.peers[0]!.heap.sync())
    }
    this.#traps.plan = () => undefined
    await this.#open()
    const heaps = this.peers.map(peer => peer.heap)
    for (const heap of heaps) await this.#driven(heap.flush())
    for (const heap of heaps) await this.#driven(heap.sync())
    assert.deepEqual(this.#errors, [])
    for (const heap of heaps) assert.ok(!this.#missesSomething(heap))
    const ids = new Set(this.relay.log.flatMap(entry => entry.parts).filter(part => part.kind === 1).map(part => `coheap:${part.segment}`))
    const images: unknown[] = []
    for (const heap of heaps) {
      const loaded = await this.#driven(heap.load<Any>([...ids].map(id => heap.ref<Any>(id))))
      const segments = loaded.map(live => snapshot(live))
      const root = snapshot(heap.root)
      // What lies near others is in no snapshot but its own.
      const inner = reachable(heap).refs.filter(ref => ref.id.includes('#'))
      const near = inner.map(ref => [ref.id, seen(ref)] as const).map(([id, live]) => [id, live === undefined ? 'deleted' : printable(snapshot(live))])
      const image = { root: printable(root), segments: segments.map(printable), near }
      images.push(image)
      assert.deepEqual(image, images[0])
      if (images.length > 1) continue
      this.#statistics.values.push(values(root) + values(segments))
      this.#statistics.roots.push(values(root))
    }
    this.#trace.update(JSON.stringify(images[0]))
    for (const entry of this.relay.log) for (const part of entry.parts) this.#trace.update(part.bytes)
    this.#statistics.again += this.relay.again
    this.#statistics.catchUps += this.relay.catchUps
    for (const { heap, traps } of this.peers) {
      this.#statistics.evictions += heap.stats().evictions
      // Each was told once.
      expecting(heap, { rebuilds: traps })
      await this.#driven(closeClean(heap))
    }
    assert.equal(this.#traps.calledAfter, 0)
  }
}

/** Whether an error says that the engine was started again. */
function isTrap(error: unknown): boolean {
  return error instanceof HeapError && error.code === 'ERR_ENGINE' && 'during' in error.details
}
