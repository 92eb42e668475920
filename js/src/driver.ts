/**
 * The pump: calls into the wasm replica, reads what comes back, hands each record to where it belongs.
 *
 * Owns the replica, the clock it is given, its one timer and the tickets of waits. Decides nothing: what a record means is
 * said by the `Sink`. Records are handed on in order; a call made while that goes on waits its turn in nobody's stack: the
 * sink must not call back, it schedules.
 *
 * ```text
 * heap ──call(op)──► wasm ──records──► Send → link · Apply, Loaded, … → sink · Done, Failed → tickets · Deadline → timer
 * ```
 */

import { OP, Reader, RECORD, Writer, type WasmReplica } from './edge.js'
import { HeapError } from './errors.js'
import { GONE } from './instance.js'
import { Keeper } from './keeper.js'
import { unrefTimer } from './link.js'
import { trapError } from './rebuild.js'
import { waiting } from './wait.js'
import type { Author, Wait } from './types.js'
import type { Id } from './uuid.js'

/** Patches of one segment, by its index. */
export interface SegmentPatches { readonly segment: number; readonly patches: Uint8Array }

export interface Applied { readonly author: Author; readonly label: string; readonly parts: readonly SegmentPatches[] }
export interface Loaded { readonly segment: number; readonly status: number; readonly bytes: number; readonly reset: boolean; readonly patches: Uint8Array }
export interface Committed { readonly seq: number; readonly unsaved: number; readonly unsavedBytes: number; readonly parts: readonly SegmentPatches[] }
/** Under `key` of object `parent` another replica made a container of kind `kept` at once with the own one, `lost`, and won. */
export interface Overruled { readonly segment: number; readonly parent: number; readonly key: string; readonly lost: number; readonly kept: number }
export interface FoundObject { readonly handle: number; readonly id: Id; readonly kind: number }
export interface GroupState { readonly group: string; readonly run: string; readonly members: readonly Id[]; readonly done: readonly string[]; readonly held: ReadonlyMap<string, number> }
export interface ClaimAnswer { readonly group: string; readonly run: string; readonly key: string; readonly grant: number; readonly state: 'granted' | 'held' | 'done' }
export interface MemberState { readonly group: string; readonly replica: Id; readonly gone: boolean; readonly sinceMs: number; readonly author: Author; readonly state: Uint8Array }

/** Where records go. */
export interface Sink {
  send(message: Uint8Array): void
  applied(commit: Applied): void
  loaded(segment: Loaded): void
  committed(commit: Committed): void
  acked(seq: number, unsaved: number, unsavedBytes: number): void
  online(exists: boolean, timeMs: number, epoch: string): void
  /** Gives the paths it touched. */
  refused(seq: number, code: string, label: string, segments: readonly number[]): string[]
  problem(error: HeapError): void
  overruled(told: Overruled): void
  /** What is here of a segment was given back to the relay, which keeps something else: that is loaded next. */
  conflict(segment: number): void
  /** What is here is being given back to a relay that has lost it (true), or that is over. */
  restoring(begins: boolean): void
  index(segment: Id, index: number): void
  evicted(segment: number): void
  /** A segment is here as bytes now, as `pack` asked. */
  atRest(segment: number): void
  /** One that was, with its mirror, is decoded again. */
  awake(segment: number): void
  joined(group: string, run: string, member: number): void
  group(state: GroupState): void
  lost(group: string, run: string, key: string, grant: number): void
  member(member: MemberState): void
  /** A segment cannot be read by this module; the replica has to go on in the full one. */
  needsFull(segment: number): void
  /** What the replica holds of a segment after it has moved. */
  moved(segment: Loaded): void
  fatal(error: HeapError): void
  /** The replica has another id from here on, since another process used the old one (`copied`) or the relay knows the old one no more; so many commits went with it. */
  forked(replica: Id, moved: number, copied: boolean): void
  /** What the relay cannot say whether it has; it is not made again. */
  inDoubt(commits: readonly Doubtful[]): void
  /** The connection is over for the replica: another is wanted at once. */
  reconnect(): void
  /** The instance trapped in this operation. `mend` comes before the next call, and without one by itself. */
  trapped(): void
  /** Lets the replica go on in another instance (`goOnIn`), if it can. */
  mend(op: number, error: HeapError): void
}

/** Where a replica is, when it is not at work in its instance. */
type Plight = { state: 'trapped'; op: number; error: HeapError } | { state: 'gone'; error: HeapError }

/** What these ask is asked again of the next instance: their answer is needed, and asking twice changes nothing. */
const QUESTIONS: ReadonlySet<number> = new Set([OP.load, OP.dump, OP.derive, OP.object, OP.find, OP.stats])
/** These have an end that their caller has to know of. The rest is taken up where it was: waits are resumed, the connection is made anew. */
const OWN_BUSINESS: ReadonlySet<number> = new Set([OP.commit, OP.export])
/** In an instance that is only being tried. */
const TRIALS: ReadonlySet<number> = new Set([OP.import, OP.resume, OP.restore])

/** A commit that nobody can say of whether it is durable, with what it did. */
export interface Doubtful { readonly seq: number; readonly label: string; readonly edits: readonly unknown[] }

/** What one call answered with, beside what went to the sink. */
export interface Answer { error?: HeapError; object?: FoundObject; derived?: Id[]; stats?: number[]; dump?: Loaded; packed?: Uint8Array; failed?: (() => void)[]; refused?: Record<string, unknown> }

interface Ask { readonly group: string; readonly run: string; readonly key: string; take(answer: ClaimAnswer): void }
interface Ticket { resolve(value: string): void; reject(error: unknown): void; /** What a wait waits for. */ wait?: { kind: number; seq: number; version: string } }

export class Driver {
  #replica: WasmReplica
  readonly #sink: Sink
  readonly #tickets = new Map<number, Ticket>()
  readonly #claims = new Map<number, Ask>()
  #input = new Writer(4096)
  #nextTicket = 1
  #timer: ReturnType<typeof setTimeout> | undefined
  #referenced = true
  #closed = false
  #plight: Plight | undefined
  /** The newest commit. */
  #seq = 0
  /** What another instance goes on from. */
  readonly keeper = new Keeper(segment => queueMicrotask(() => { if (!this.#closed && this.keeper.has(segment)) this.call(OP.keep, w => w.varint(segment)) }))

  constructor(replica: WasmReplica, sink: Sink) {
    this.#replica = replica
    this.#sink = sink
  }

  /** Whether there is a replica to call. */
  get alive(): boolean {
    return !this.#closed && this.#plight?.state !== 'gone'
  }

  /**
   * One operation. An `Error` record comes back as `error`. If the instance traps, the replica goes on in another one: a
   * commit then throws `ERR_ENGINE` and was not made, a question is asked again, and all else is taken up by itself.
   */
  call(op: number, build?: (w: Writer) => void): Answer {
    try {
      return this.#callOnce(op, build)
    } catch (error) {
      if (this.#plight === undefined || this.#closed || OWN_BUSINESS.has(op) || TRIALS.has(op)) throw error
      if (!QUESTIONS.has(op)) return {}
      return this.#callOnce(op, build)
    }
  }

  #callOnce(op: number, build: ((w: Writer) => void) | undefined): Answer {
    if (this.#closed) throw new HeapError('ERR_CLOSED', 'the heap is closed')
    if (this.#plight !== undefined) this.mend()
    // The module copies its input, so one buffer serves all calls.
    const w = this.#input
    w.truncate()
    w.varint(Math.max(0, Math.floor(nowMs())))
    build?.(w)
    let records: Uint8Array
    try {
      records = this.#replica.call(op, w.view())
    } catch (cause) {
      if (isRefusal(cause)) throw new HeapError('ERR_ENGINE', `the engine failed: ${(cause as Error).message}`, { cause })
      const error = trapError(op, cause)
      if (!TRIALS.has(op)) {
        this.#plight = { state: 'trapped', op, error }
        this.#sink.trapped()
      }
      throw error
    }
    const answer = this.#dispatch(op, records)
    // What mirrors are compared with is asked for in here: that call is not followed by another comparison.
    if (op !== OP.dump && !TRIALS.has(op)) this.afterRecords()
    return answer
  }

  /** After a trap: goes on in another instance now. Throws if there is none. */
  mend(): void {
    const plight = this.#plight
    if (plight === undefined || this.#closed) return
    if (plight.state === 'trapped') this.#sink.mend(plight.op, plight.error)
    if (this.#plight !== undefined) throw this.#plight.error
  }

  /** What trapped is left alone, and the replica is in this instance, which has done nothing yet. */
  goOnIn(replica: WasmReplica, resume: (w: Writer) => void): Answer {
    this.#replica = replica
    this.#plight = undefined
    this.#input = new Writer(4096)
    clearTimeout(this.#timer)
    return this.call(OP.resume, resume)
  }

  /** There is no instance to go on in. */
  give(up: HeapError): void {
    this.#plight = { state: 'gone', error: up }
    clearTimeout(this.#timer)
  }

  /** `waits` of operation `resume`. */
  writeWaits(w: Writer): void {
    const waits = [...this.#tickets].filter(([, { wait }]) => wait !== undefined)
    w.varint(waits.length)
    for (const [ticket, { wait }] of waits) {
      w.varint(ticket)
      switch (wait!.kind) {
        case 0: w.u8(0).varint(wait!.seq); break
        case 1: w.u8(2); break
        case 2: w.u8(1); break
        default: w.u8(3).str(wait!.version)
      }
    }
  }

  /**
   * Goes on in another instance, which has done nothing yet. All that the replica is goes along (indexes, handles, waits,
   * what is unsaved), but not its connection. If the other one cannot take it, this one stays and the error is thrown.
   */
  moveTo(other: WasmReplica): void {
    const { packed } = this.call(OP.export)
    const before = this.#replica
    this.#replica = other
    try {
      const { error } = this.call(OP.import, w => w.raw(packed!))
      if (error !== undefined) throw error
    } catch (error) {
      this.#replica = before
      throw error
    }
    before.free?.()
    // It has grown to the size of the whole replica.
    this.#input = new Writer(4096)
  }

  /** A ticket operation that ends with Done or Failed. */
  wait(what: string, kind: number, version: string | undefined, wait: Wait | undefined): Promise<string> {
    return waiting<string>(what, wait, (resolve, reject) => {
      const ticket = this.#nextTicket++
      this.#tickets.set(ticket, { resolve, reject, wait: { kind, seq: this.#seq, version: version ?? '' } })
      const { error } = this.call(OP.wait, w => {
        w.varint(ticket).u8(kind)
        if (version !== undefined) w.str(version)
      })
      if (error !== undefined) {
        this.#tickets.delete(ticket)
        return reject(error)
      }
      return () => {
        if (this.#tickets.delete(ticket) && !this.#closed) this.call(OP.cancel, w => w.varint(ticket))
      }
    })
  }

  /** A ticket of something that has no end but failure. */
  ticket(reject: (error: HeapError) => void): number {
    const ticket = this.#nextTicket++
    this.#tickets.set(ticket, { resolve: () => {}, reject: error => reject(error as HeapError) })
    return ticket
  }

  forget(ticket: number): void {
    this.#tickets.delete(ticket)
  }

  /** Asks for a claim. Asked without a connection, it waits for `resendClaims`. */
  claim(group: string, run: string, key: string, wait: Wait | undefined): Promise<ClaimAnswer> {
    return waiting<ClaimAnswer>('the claim', wait, (resolve, reject) => {
      const ticket = this.#nextTicket++
      this.#claims.set(ticket, { group, run, key, take: resolve })
      this.#tickets.set(ticket, { resolve: () => {}, reject })
      this.#sendClaim(ticket)
      return () => {
        this.#tickets.delete(ticket)
        // A grant that comes after all is given back at once.
        this.#claims.set(ticket, {
          group, run, key,
          take: answer => {
            if (answer.state !== 'granted') return
            queueMicrotask(() => { if (!this.#closed) this.call(OP.release, w => w.str(answer.group).str(answer.run).str(key).varint(answer.grant)) })
          },
        })
      }
    })
  }

  #sendClaim(ticket: number): void {
    const { group, run, key } = this.#claims.get(ticket)!
    this.call(OP.claim, w => w.varint(ticket).str(group).str(run).str(key))
  }

  /** Asks again, on a new connection, for what was not answered. */
  resendClaims(): void {
    for (const ticket of this.#claims.keys()) {
      if (this.#tickets.has(ticket)) this.#sendClaim(ticket)
      else this.#claims.delete(ticket)
    }
  }

  unref(): void {
    this.#referenced = false
    unrefTimer(this.#timer)
  }

  /** Fails what still waits; the replica is not called again. */
  failAll(error: HeapError): void {
    for (const ticket of this.#tickets.values()) ticket.reject(error)
    this.#tickets.clear()
    this.#claims.clear()
  }

  close(error: HeapError): void {
    if (this.#closed) return
    this.#closed = true
    clearTimeout(this.#timer)
    this.failAll(error)
    if (this.#plight === undefined) this.#replica.free?.()
    this.#replica = GONE.replica
    this.keeper.clear()
  }

  #dispatch(op: number, records: Uint8Array): Answer {
    const answer: Answer = {}
    const r = new Reader(records)
    while (r.left > 0) {
      const kind = r.u8()
      this.#record(op, kind, new Reader(r.bytes()), answer)
    }
    for (const fail of answer.failed ?? []) fail()
    return answer
  }

  #record(op: number, kind: number, r: Reader, answer: Answer): void {
    const sink = this.#sink
    switch (kind) {
      case RECORD.send: return sink.send(r.rest())
      case RECORD.apply: {
        r.varint()
        const author = readAuthor(r)
        return sink.applied({ author, label: r.str(), parts: r.list(readPatches) })
      }
      case RECORD.loaded: {
        const loaded = { segment: r.varint(), status: r.u8(), bytes: r.varint(), reset: r.u8() === 1, patches: r.bytes() }
        if (op === OP.dump) return void (answer.dump = loaded)
        if (TRIALS.has(op)) return sink.moved(loaded)
        if (loaded.status !== 0) this.keeper.gone(loaded.segment)
        return sink.loaded(loaded)
      }
      case RECORD.committed:
        this.#seq = r.varint()
        return sink.committed({ seq: this.#seq, unsaved: r.varint(), unsavedBytes: r.varint(), parts: r.list(readPatches) })
      case RECORD.acked: {
        const seq = r.varint()
        this.keeper.acked(seq)
        return sink.acked(seq, r.varint(), r.varint())
      }
      case RECORD.online: return sink.online(r.u8() === 1, r.varint(), r.str())
      case RECORD.done: {
        const ticket = r.varint()
        return this.#take(ticket)?.resolve(r.str())
      }
      case RECORD.failed: {
        const number = r.varint()
        const ticket = this.#take(number)
        this.#claims.delete(number)
        const error = readError(r)
        // Told after the records behind it: a Refused says why.
        ;(answer.failed ??= []).push(() => ticket?.reject(
          error.code === 'ERR_REFUSED' ? new HeapError(error.code, error.message, { details: answer.refused ?? {} })
            // T1: what nobody was given as a version is a mistake of the program.
            : error.code === NOT_A_VERSION ? new TypeError(`heap.reach(version): ${error.message}`) : error))
        return
      }
      case RECORD.refused: {
        const seq = r.varint()
        this.keeper.refused(seq)
        const code = r.str()
        const label = r.str()
        answer.refused = { code, label, paths: sink.refused(seq, code, label, r.list(each => each.varint())) }
        return
      }
      case RECORD.problem: return sink.problem(readError(r))
      case RECORD.deadline: return this.#deadline(r.varint())
      case RECORD.index: return sink.index(r.id(), r.varint())
      case RECORD.evicted: {
        const segment = r.varint()
        this.keeper.gone(segment)
        return sink.evicted(segment)
      }
      case RECORD.atRest: return sink.atRest(r.varint())
      case RECORD.awake: return sink.awake(r.varint())
      case RECORD.derived: return void (answer.derived = r.list(each => each.id()))
      case RECORD.object: return void (answer.object = { handle: r.varint() - 1, id: r.id(), kind: r.u8() })
      case RECORD.joined: return sink.joined(r.str(), r.str(), r.varint())
      case RECORD.group: return sink.group({
        group: r.str(), run: r.str(), members: r.list(each => each.id()), done: r.list(each => each.str()),
        held: new Map(r.list(each => [each.str(), each.varint()] as const)),
      })
      case RECORD.claimed: {
        const ticket = r.varint()
        const group = r.str()
        const run = r.str()
        const claimed = { group, run, key: r.str(), grant: r.varint(), state: (['granted', 'held', 'done'] as const)[r.u8()] ?? 'held' }
        const ask = this.#claims.get(ticket)
        this.#claims.delete(ticket)
        this.#tickets.delete(ticket)
        return ask?.take(claimed)
      }
      case RECORD.lost: return sink.lost(r.str(), r.str(), r.str(), r.varint())
      case RECORD.member: {
        const group = r.str()
        const replica = r.id()
        const gone = r.u8() === 1
        const sinceMs = r.varint()
        const author = authorOf(replica, r.str(), r.str())
        return sink.member({ group, replica, gone, sinceMs, author, state: new Uint8Array(r.bytes()) })
      }
      case RECORD.stats: return void (answer.stats = r.list(each => each.varint()))
      case RECORD.overruled: return sink.overruled({ segment: r.varint(), parent: r.varint(), key: r.str(), lost: r.varint(), kept: r.u8() })
      case RECORD.conflict: return sink.conflict(r.varint())
      case RECORD.fatal: return sink.fatal(readError(r, false))
      case RECORD.restoring: return sink.restoring(r.u8() === 1)
      case RECORD.needsFull: return sink.needsFull(r.varint())
      case RECORD.keep: return this.keeper.take(r)
      case RECORD.packed: return void (answer.packed = r.rest())
      case RECORD.forked: return sink.forked(r.id(), r.varint(), r.u8() === 1)
      case RECORD.inDoubt: {
        const commits = r.list(each => ({ seq: each.varint(), label: each.str(), edits: JSON.parse(each.str()) as unknown[] }))
        for (const { seq } of commits) this.keeper.refused(seq)
        return sink.inDoubt(commits)
      }
      case RECORD.reconnect: return sink.reconnect()
      case RECORD.error: return void (answer.error = readError(r))
      default: throw new HeapError('ERR_ENGINE', `a record of kind ${kind}: the JavaScript and the wasm of the package do not match`)
    }
  }

  #take(ticket: number): Ticket | undefined {
    const found = this.#tickets.get(ticket)
    this.#tickets.delete(ticket)
    return found
  }

  #deadline(atMs: number): void {
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => this.#tick(), Math.min(Math.max(1, Math.ceil(atMs - nowMs())), 0x7fff_ffff))
    if (!this.#referenced) unrefTimer(this.#timer)
  }

  #tick(): void {
    if (this.#closed) return
    this.beforeIncoming()
    try {
      this.call(OP.tick)
    } catch (error) {
      this.#sink.fatal(error as HeapError)
    }
  }

  /** Runs before anything that may bring changes from elsewhere: the heap closes its open batch here. */
  beforeIncoming: () => void = () => {}

  /** Runs when all records of a call were handed on: before that, the engine may be ahead of the mirrors. */
  afterRecords: () => void = () => {}
}

/** The monotonic clock that the replica is given. */
export function nowMs(): number {
  return performance.now()
}

/** Whether the module itself threw, as it does for an input that it cannot read: it is unharmed. Anything else is a trap. */
function isRefusal(cause: unknown): boolean {
  return cause instanceof Error && Object.getPrototypeOf(cause) === Error.prototype
}

function readPatches(r: Reader): SegmentPatches {
  return { segment: r.varint(), patches: r.bytes() }
}

function readAuthor(r: Reader): Author {
  return authorOf(r.id(), r.str(), r.str())
}

function authorOf(replica: Id, name: string, subject: string): Author {
  return { replica, ...(name === '' ? {} : { name }), ...(subject === '' ? {} : { subject }) }
}

/** The edge's word for a text that is no version (`core/src/edge/output.rs`). */
const NOT_A_VERSION = 'ERR_NOT_A_VERSION'

function readError(r: Reader, retryable?: boolean): HeapError {
  const code = r.str()
  return new HeapError(code, r.str(), retryable === undefined ? {} : { retryable })
}
