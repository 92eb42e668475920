/**
 * Presence: what each member of a group shows of itself while it is connected. Kept in memory, gone with the session.
 *
 * States are plain data, carried as JSON (16 kB at most). A member hears of the others from its first word on, so asking
 * for the group already sends one (an empty "clear"). After a reconnect the state is shown again.
 */

import { OP } from './edge.js'
import { HeapError } from './errors.js'
import type { Driver, MemberState } from './driver.js'
import type { Author, Member, Presence } from './types.js'

const STATE_BYTES_MAX = 16 * 1024
const encoder = new TextEncoder()
const decoder = new TextDecoder()

export class PresenceGroups {
  readonly #groups = new Map<string, PresenceGroup<object>>()
  #online = false

  constructor(readonly driver: Driver, public author: Author, readonly later: (fn: () => void) => void) {}

  /** This replica has another id. */
  become(author: Author): void {
    this.author = author
    for (const group of this.#groups.values()) group.become(author)
  }

  group<P extends object>(name: string): Presence<P> {
    let group = this.#groups.get(name)
    if (group === undefined) {
      group = new PresenceGroup<object>(this.author, state => this.#send(name, state), this.later)
      this.#groups.set(name, group)
      this.#send(name, undefined)
    }
    return group as unknown as Presence<P>
  }

  #send(name: string, state: Uint8Array | undefined): void {
    if (!this.#online) return
    this.driver.call(OP.presence, w => w.str(name).u8(state === undefined ? 1 : 0).bytes(state ?? new Uint8Array()))
  }

  member(member: MemberState): void {
    this.#groups.get(member.group)?.heard(member)
  }

  online(): void {
    this.#online = true
    for (const [name, group] of this.#groups) this.#send(name, group.encoded)
  }

  disconnected(): void {
    this.#online = false
    for (const group of this.#groups.values()) group.alone()
  }
}

class PresenceGroup<P extends object> implements Presence<P> {
  #members: ReadonlyMap<string, Member<P>> = new Map()
  #state: P | undefined
  encoded: Uint8Array | undefined
  readonly #watchers = new Set<(members: ReadonlyMap<string, Member<P>>) => void>()

  constructor(public author: Author, readonly send: (state: Uint8Array | undefined) => void, readonly later: (fn: () => void) => void) {}

  get me(): string {
    return this.author.replica
  }

  become(author: Author): void {
    const own = this.#members.get(this.me)
    const members = new Map(this.#members)
    members.delete(this.me)
    this.author = author
    if (own !== undefined) this.#become(members.set(this.me, { ...own, author }))
  }

  /** Everybody who shows something, this replica too, which the relay does not tell of itself. */
  get members(): ReadonlyMap<string, Member<P>> {
    return this.#members
  }

  set(state: P): void {
    const json = JSON.stringify(state) as string | undefined
    if (typeof state !== 'object' || state === null || json === undefined) throw new TypeError('presence.set takes a plain object')
    const encoded = encoder.encode(json)
    if (encoded.length > STATE_BYTES_MAX) throw new HeapError('ERR_TOO_LARGE', `a presence state may have ${STATE_BYTES_MAX} bytes`)
    this.#state = JSON.parse(json) as P
    this.encoded = encoded
    this.send(encoded)
    const sinceMs = this.#members.get(this.me)?.sinceMs ?? 0
    this.#become(new Map(this.#members).set(this.me, { state: deepFreeze(JSON.parse(json) as P), author: this.author, sinceMs }))
  }

  update(part: Partial<P>): void {
    this.set({ ...this.#state, ...part } as P)
  }

  clear(): void {
    this.#state = undefined
    this.encoded = undefined
    this.send(undefined)
    const members = new Map(this.#members)
    if (members.delete(this.me)) this.#become(members)
  }

  watch(fn: (members: ReadonlyMap<string, Member<P>>) => void): Disposable {
    this.#watchers.add(fn)
    return { [Symbol.dispose]: () => this.#watchers.delete(fn) }
  }

  heard(member: MemberState): void {
    const members = new Map(this.#members)
    if (member.gone || member.state.length === 0) members.delete(member.replica)
    else {
      let state: P
      try {
        state = deepFreeze(JSON.parse(decoder.decode(member.state)) as P)
      } catch {
        return
      }
      members.set(member.replica, { state, author: member.author, sinceMs: member.sinceMs })
    }
    this.#become(members)
  }

  /** Without a connection nobody else is known to be there. */
  alone(): void {
    if (this.#members.size > 0) this.#become(new Map([...this.#members].filter(([replica]) => replica === this.me)))
  }

  #become(members: ReadonlyMap<string, Member<P>>): void {
    this.#members = members
    for (const fn of this.#watchers) this.later(() => { if (this.#watchers.has(fn)) fn(this.#members) })
  }
}

function deepFreeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null) {
    for (const part of Object.values(value)) deepFreeze(part)
    Object.freeze(value)
  }
  return value
}
