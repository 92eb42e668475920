/**
 * `share()`: the partitions of a map among all that call it, each to one worker at a time, until all are done (S27).
 *
 * What a worker asks for comes in the order of rendezvous hashing, so workers that know each other ask for different
 * partitions first; the relay's grant decides. Before all others comes what somebody had begun and did not end, so the work of
 * one that died is not left for last. A partition is loaded and held until the next step; if `done()` was not said
 * by then, its claim is given back and somebody (perhaps this worker) gets it again.
 *
 * ```text
 * join ─► pick ─► ask ─granted─► load ─► yield ─► done? ─yes─► next
 *          ▲        └─held─► wait for word of the group        └no─► release
 * ```
 */

import { fnv1a, type BigMapObject } from './bigmap.js'
import { PartitionObject } from './partition.js'
import type { HeldClaim, Membership } from './groups.js'
import type { Partition } from './types.js'

export interface ShareOptions { group?: string; run?: string; signal?: AbortSignal }

export async function* share<V>(map: BigMapObject<V>, options: ShareOptions): AsyncGenerator<Partition<V>, void, undefined> {
  const { signal } = options
  signal?.throwIfAborted()
  const wait = signal === undefined ? {} : { signal }
  await map.ready(wait)
  const { groups } = map.host
  const count = map.count
  const membership = groups.join(`${map.name}/${options.group ?? 'default'}`, options.run ?? '', count)
  try {
    while (!membership.joined) await membership.change(signal)
    for (;;) {
      signal?.throwIfAborted()
      if (membership.failure !== undefined) throw membership.failure
      const finished = new Set([...membership.done, ...membership.found])
      if (finished.size >= count) return
      const key = nextKey(membership, count, finished, map.host.space.options.me.replica)
      if (key === undefined) {
        await membership.change(signal)
        membership.busy.clear()
        continue
      }
      const { claim, state } = await groups.ask(membership, key, wait)
      if (claim === undefined) {
        membership.freed.delete(key)
        if (state === 'done') membership.found.add(key)
        else membership.busy.add(key)
        continue
      }
      yield* work(map, membership, claim, wait)
    }
  } finally {
    for (const claim of [...membership.held.values()]) if (!claim.finishing) groups.release(membership, claim)
    groups.leave(membership)
  }
}

async function* work<V>(map: BigMapObject<V>, membership: Membership, claim: HeldClaim, wait: { signal?: AbortSignal }): AsyncGenerator<Partition<V>, void, undefined> {
  const { groups } = map.host
  try {
    const partition = new PartitionObject<V>(map, { index: Number(claim.key), key: undefined, claim })
    const [segment] = await map.loadAt([Number(claim.key)], wait)
    partition.hold(segment!)
    const isMarked = (): boolean => segment!.marks.some(mark => mark.group === claim.group && mark.run === claim.run)
    // The mark may be a done() of here, under an earlier grant, that is refused yet: only what is durable counts.
    if (isMarked()) await map.host.settle(wait)
    if (isMarked()) {
      // Done already, by a worker whose relay forgot: said to this one, too.
      membership.found.add(claim.key)
      groups.release(membership, claim)
      groups.announce(membership)
      return
    }
    segment!.pins += 1
    try {
      yield partition
    } finally {
      segment!.pins -= 1
    }
  } finally {
    if (!claim.finishing) groups.release(membership, claim)
  }
}

/** The key this worker should ask for: the first in its order that is free, of those that were begun if there are any. */
function nextKey(membership: Membership, count: number, finished: ReadonlySet<string>, me: string): string | undefined {
  const order = orderOf(membership, count, me)
  const isFree = (key: string): boolean => !finished.has(key) && !membership.busy.has(key) && !membership.taken.has(key) && !membership.held.has(key)
  return (membership.freed.size > 0 ? order.find(key => membership.freed.has(key) && isFree(key)) : undefined) ?? order.find(isFree)
}

const orders = new WeakMap<Membership, { members: string; order: readonly string[] }>()

/** All keys in the order of a worker: what it comes first for among the members, then what it comes second for, and so on. */
function orderOf(membership: Membership, count: number, me: string): readonly string[] {
  const members = membership.members.join()
  const known = orders.get(membership)
  if (known?.members === members) return known.order
  const ranked = Array.from({ length: count }, (_, i) => {
    const key = String(i)
    const mine = score(me, key)
    const rank = membership.members.filter(member => member !== me && score(member, key) > mine).length
    return { key, rank, mine }
  })
  const order = ranked.sort((a, b) => a.rank - b.rank || b.mine - a.mine).map(({ key }) => key)
  orders.set(membership, { members, order })
  return order
}

/** How much a worker comes first for a key: the same number for everybody who reckons it. */
function score(member: string, key: string): number {
  let hash = fnv1a(`${member} ${key}`)
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b)
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35)
  return (hash ^ (hash >>> 16)) >>> 0
}
