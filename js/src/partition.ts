/**
 * One partition of a BigMap, in a program's hands. Holding a loaded one keeps its segment here (S24).
 *
 * After `load()` its methods are synchronous and may be used inside `transact`; before, they throw `ERR_NOT_LOADED`, which
 * `heap.run` answers by loading. One that `share()` hands out also carries the claim that `done()` ends.
 */

import { HeapError } from './errors.js'
import { sortedKeys, type MapNode } from './mirror.js'
import { mapOf, type BigMapObject } from './bigmap.js'
import { deleteKey, setKey } from './write.js'
import type { HeldClaim } from './groups.js'
import type { Segment } from './residence.js'
import type { Partition, Wait } from './types.js'

export interface PartitionOptions {
  readonly index: number | undefined
  /** Of which the partition is meant, while the number of partitions is not known. */
  readonly key: string | undefined
  readonly claim: HeldClaim | undefined
}

export const defaultOptions: PartitionOptions = { index: undefined, key: undefined, claim: undefined }

export class PartitionObject<V> implements Partition<V> {
  readonly #map: BigMapObject<V>
  readonly #options: PartitionOptions
  #holding: object | undefined

  constructor(map: BigMapObject<V>, options: PartitionOptions) {
    this.#map = map
    this.#options = options
  }

  get index(): number {
    return this.#options.index ?? this.#map.indexOf(this.#options.key!)
  }

  get #segment(): Segment {
    return this.#map.segmentAt(this.index)
  }

  get loaded(): boolean {
    return this.#segment.standing === 'here' || this.#segment.standing === 'packed'
  }

  get size(): number {
    return Object.keys(this.#root().bag).length
  }

  async load(wait?: Wait): Promise<this> {
    await this.#map.ready(wait)
    const [segment] = await this.#map.loadAt([this.index], wait)
    this.hold(segment!)
    return this
  }

  /** Keeps the segment here as long as this object is held. */
  hold(segment: Segment): void {
    if (this.#holding === segment) return
    this.#holding = segment
    segment.holders.push(new WeakRef(this))
  }

  #root(): MapNode {
    const segment = this.#segment
    this.#map.host.space.show(segment)
    if (segment.standing !== 'here') {
      const ref = this.#map.host.space.refs.of(segment.id)
      throw new HeapError('ERR_NOT_LOADED', `partition ${this.index} of the map ${JSON.stringify(this.#map.name)} is not loaded: await partition.load(), or use heap.run()`, { details: { refs: [ref], derived: true } })
    }
    this.#map.host.space.touch(segment)
    this.hold(segment)
    return mapOf(segment)
  }

  get(key: string): V | undefined {
    return this.#map.presentIn(this.#root(), key)
  }

  set(key: string, value: V): void {
    const root = this.#root()
    const home = this.#map.indexOf(key)
    if (home !== this.index) throw new RangeError(`${JSON.stringify(key)} belongs into partition ${home}, not ${this.index}: map.partitionOf(key) gives it`)
    this.#map.claimCount()
    setKey(root, key, value)
  }

  delete(key: string): boolean {
    return deleteKey(this.#root(), key)
  }

  *entries(): IterableIterator<[string, V]> {
    const root = this.#root()
    for (const key of sortedKeys(root)) {
      const value = this.#map.presentIn(root, key)
      if (value !== undefined) yield [key, value]
    }
  }

  done(): void {
    const claim = this.#options.claim
    if (claim === undefined) throw new TypeError('partition.done() is for partitions that share() handed out')
    if (claim.lost.aborted) throw new HeapError('ERR_CONFLICT', `the claim on partition ${this.index} was lost: its work belongs to another now`, { details: { group: claim.group, run: claim.run, partition: this.index } })
    if (claim.finishing) return
    const { space } = this.#map.host
    const segment = this.#segment
    this.#root()
    const say = (): void => {
      space.mark(segment, claim)
      claim.finishing = true
      segment.mirror!.undo?.push(() => { claim.finishing = false })
    }
    if (space.inTransact) say()
    else space.transact(say)
  }
}
