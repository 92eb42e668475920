/**
 * Groups and claims: who works on what, as this replica knows it (S27).
 *
 * A claim is presence, not a lock: the relay grants it to the first who asks, and takes it away when its holder is gone. Who
 * was cut off asserts what it holds when it is back, and is told what it lost. `share.ts` hands out partitions with this;
 * `heap.claim(ref)` is the same for one object, in the group ''.
 */

import { OP } from './edge.js'
import { HeapError } from './errors.js'
import type { ClaimAnswer, Driver, GroupState } from './driver.js'
import type { Claim, Wait } from './types.js'
import type { Id } from './uuid.js'

/** A grant that is current, as far as known. */
export class HeldClaim {
  readonly #lost = new AbortController()
  /** `done()` was said, in a commit that is not known to be durable yet. */
  finishing = false
  seq: number | undefined = undefined

  constructor(readonly group: string, readonly run: string, readonly key: string, readonly grant: number) {}

  get lost(): AbortSignal {
    return this.#lost.signal
  }

  lose(reason: HeapError): void {
    this.#lost.abort(reason)
  }
}

/** One membership. */
export class Membership {
  run: string
  members: readonly Id[] = []
  done: ReadonlySet<string> = new Set()
  /** Keys that others hold. */
  taken: ReadonlySet<string> = new Set()
  /** Keys that others held and gave up, or lost by dying, before they were done. */
  readonly freed = new Set<string>()
  /** Keys that others held when this one asked for them. */
  readonly busy = new Set<string>()
  readonly held = new Map<string, HeldClaim>()
  /** Keys the relay is being asked for. */
  readonly asking = new Set<string>()
  /** Keys found done in the data, which the relay may not know. */
  readonly found = new Set<string>()
  joined = false
  #changed: (() => void)[] = []
  failure: HeapError | undefined = undefined
  /** Under which the relay is asked to take it in. */
  ticket: number | undefined = undefined

  constructor(readonly group: string, run: string, readonly total: number) {
    this.run = run
  }

  /** Resolves at the next word about the group. */
  change(signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.failure !== undefined) return reject(this.failure)
      const done = (): void => {
        signal?.removeEventListener('abort', done)
        if (signal?.aborted === true) reject(signal.reason as Error)
        else if (this.failure !== undefined) reject(this.failure)
        else resolve()
      }
      signal?.addEventListener('abort', done)
      this.#changed.push(done)
    })
  }

  /** It is not to be: the relay did not take it in, or there will be no connection any more. */
  fail(error: HeapError): void {
    this.failure = error
    this.tell()
  }

  tell(): void {
    const changed = this.#changed
    this.#changed = []
    for (const call of changed) call()
  }
}

export class Groups {
  readonly #driver: Driver
  readonly #memberships = new Set<Membership>()
  #online = false

  constructor(driver: Driver) {
    this.#driver = driver
  }

  /** Becomes a member; the run is known once `joined`. */
  join(group: string, run: string, total: number): Membership {
    const membership = new Membership(group, run, total)
    this.#memberships.add(membership)
    if (this.#online) this.announce(membership)
    return membership
  }

  /** Says (again) what this member holds and knows to be done. */
  announce(membership: Membership): void {
    if (!this.#online) return
    const held = this.#alongside(membership).flatMap(each => [...each.held.values()])
    const done = [...new Set([...membership.done, ...membership.found])]
    membership.ticket ??= this.#driver.ticket(error => membership.fail(error))
    this.#driver.call(OP.join, w => {
      w.varint(membership.ticket!).str(membership.group).str(membership.run).varint(membership.total).varint(held.length)
      for (const claim of held) w.str(claim.key).varint(claim.grant)
      w.varint(done.length)
      for (const key of done) w.str(key)
    })
  }

  leave(membership: Membership): void {
    if (!this.#memberships.delete(membership)) return
    if (membership.ticket !== undefined) this.#driver.forget(membership.ticket)
    if (!this.#online) return
    const other = [...this.#memberships].some(each => each.group === membership.group && each.run === membership.run)
    if (!other) this.#driver.call(OP.leave, w => w.str(membership.group).str(membership.run))
  }

  /**
   * Asks for a key; `held` and `done` are answers too. To the relay all loops of this replica are one holder, which it would
   * grant a key twice: what one of them has or asks for is held, to the others.
   */
  async ask(membership: Membership, key: string, wait?: Wait): Promise<ClaimAnswer & { claim?: HeldClaim }> {
    const { group, run } = membership
    if (this.#alongside(membership).some(each => each.held.has(key) || each.asking.has(key))) return { group, run, key, grant: 0, state: 'held' }
    membership.asking.add(key)
    try {
      const answer = await this.#driver.claim(group, run, key, wait)
      if (answer.state !== 'granted') return answer
      const claim = new HeldClaim(answer.group, answer.run, key, answer.grant)
      membership.held.set(key, claim)
      return { ...answer, claim }
    } finally {
      membership.asking.delete(key)
    }
  }

  /** The memberships of this replica that are one to the relay; the relay's own runs begin with `~`. */
  #alongside(membership: Membership): Membership[] {
    const { group, run } = membership
    return [...this.#memberships].filter(each => each.group === group && (each.run === run || (run === '' && each.run.startsWith('~'))))
  }

  release(membership: Membership, claim: HeldClaim): void {
    if (membership.held.get(claim.key) !== claim) return
    membership.held.delete(claim.key)
    if (this.#online) this.#driver.call(OP.release, w => w.str(claim.group).str(claim.run).str(claim.key).varint(claim.grant))
  }

  #single: Membership | undefined

  /** A claim on one object. */
  async claim(group: string, run: string, key: string, wait?: Wait): Promise<Claim | undefined> {
    const membership = (this.#single ??= this.join(group, run, 0))
    const { claim } = await this.ask(membership, key, wait)
    if (claim === undefined) return undefined
    const release = (): void => this.release(membership, claim)
    return { lost: claim.lost, release, [Symbol.asyncDispose]: async () => release() }
  }

  // From the relay

  joined(group: string, run: string, _member: number): void {
    for (const membership of this.#memberships) {
      if (membership.group !== group || (membership.run !== run && membership.run !== '')) continue
      membership.run = run
      membership.joined = true
      membership.tell()
    }
  }

  state(state: GroupState): void {
    for (const membership of this.#memberships) {
      if (membership.group !== state.group || membership.run !== state.run) continue
      membership.members = state.members
      membership.done = new Set(state.done)
      const { taken } = membership
      membership.taken = new Set([...state.held.keys()].filter(key => !membership.held.has(key)))
      for (const key of taken) {
        if (membership.taken.has(key)) continue
        membership.freed.add(key)
        membership.busy.delete(key)
      }
      for (const key of membership.freed) if (membership.done.has(key) || state.held.has(key) || membership.held.has(key)) membership.freed.delete(key)
      for (const [key, claim] of membership.held) if (membership.done.has(key) && claim.finishing) membership.held.delete(key)
      membership.tell()
    }
  }

  lost(group: string, run: string, key: string, grant: number): void {
    for (const membership of this.#memberships) {
      const claim = membership.held.get(key)
      if (membership.group !== group || membership.run !== run || claim?.grant !== grant) continue
      membership.held.delete(key)
      claim.lose(new HeapError('ERR_CONFLICT', `the claim on ${key} was lost to another`, { details: { group, run, key } }))
      membership.tell()
    }
  }

  /** Commits up to this one are durable: what they ended is done, also for a relay that forgot the claim with a restart. */
  acked(seq: number): void {
    for (const membership of this.#memberships) {
      for (const claim of [...membership.held.values()]) {
        if (!claim.finishing || claim.seq === undefined || claim.seq > seq) continue
        membership.held.delete(claim.key)
        membership.found.add(claim.key)
        membership.tell()
      }
    }
  }

  /** A commit was refused: if it said `done()`, what it ended is not this replica's any more. */
  refused(seq: number): void {
    for (const membership of this.#memberships) {
      for (const claim of [...membership.held.values()]) if (claim.seq === seq) this.lost(membership.group, membership.run, claim.key, claim.grant)
    }
  }

  online(): void {
    this.#online = true
    for (const membership of this.#memberships) this.announce(membership)
    this.#driver.resendClaims()
  }

  disconnected(): void {
    this.#online = false
  }

  failAll(error: HeapError): void {
    this.#online = false
    for (const membership of this.#memberships) {
      membership.fail(error)
      for (const claim of membership.held.values()) claim.lose(error)
    }
  }
}
