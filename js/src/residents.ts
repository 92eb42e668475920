/**
 * What is here: segments that have a mirror, segments that are bytes alone, and what all of them are counted with.
 *
 * ```text
 *   away ── show ──► shown ── rest ──► shown, its document at rest
 *                      │  ◄─ awake ──┘        │
 *                      └─────── pack ─────────┴──► packed ── show ──► shown
 *   away ◄── leave ── any of them
 * ```
 */

import { Mirror } from './mirror.js'
import { setHost, type WriteHost } from './write.js'
import type { Segment } from './residence.js'
import type { SegmentStats } from './types.js'

/** How each segment is here, for people. */
export function segmentStats(residents: Iterable<Segment>): SegmentStats[] {
  return [...residents].map(({ id, standing, atRest, mirror, bytes }) => (
    { ref: `coheap:${id}`, residence: atRest || standing === 'packed' ? 'packed' : 'live', mirror: mirror !== undefined, bytes }
  ))
}

export class Residents {
  readonly #host: WriteHost
  readonly #shown = new Map<Mirror, Segment>()
  readonly #packed = new Set<Segment>()
  #clock = 0
  /** What all of them are counted with. */
  bytes = 0

  constructor(host: WriteHost) {
    this.#host = host
  }

  *[Symbol.iterator](): IterableIterator<Segment> {
    yield* this.#shown.values()
    yield* this.#packed
  }

  /** Those that have a mirror. */
  get shown(): Iterable<Segment> {
    return this.#shown.values()
  }

  get count(): number {
    return this.#shown.size + this.#packed.size
  }

  of(mirror: Mirror): Segment | undefined {
    return this.#shown.get(mirror)
  }

  /** It was read or written. */
  touch(segment: Segment): void {
    segment.used = ++this.#clock
  }

  /** Gives it an empty mirror. */
  show(segment: Segment): Mirror {
    const mirror = new Mirror()
    setHost(mirror, this.#host)
    segment.mirror = mirror
    segment.objects.clear()
    this.#packed.delete(segment)
    this.#shown.set(mirror, segment)
    if (segment.watchers > 0) mirror.log = []
    this.touch(segment)
    return mirror
  }

  /** It has this encoded size from now on, and its document is decoded. */
  size(segment: Segment, bytes: number): void {
    segment.bytes = bytes
    segment.atRest = false
    segment.changedMs = performance.now()
    this.#count(segment)
  }

  /** Its document is bytes, or is decoded again. */
  rest(segment: Segment, atRest: boolean): void {
    segment.atRest = atRest
    this.#count(segment)
  }

  /** It goes on without its mirror, as bytes. */
  pack(segment: Segment): void {
    this.#hide(segment)
    segment.standing = 'packed'
    this.#packed.add(segment)
    this.#count(segment)
  }

  /** It is not here any more. Nodes that somebody holds keep their last values. */
  leave(segment: Segment): void {
    this.#hide(segment)
    this.#packed.delete(segment)
    this.uncount(segment)
  }

  #hide(segment: Segment): void {
    if (segment.mirror === undefined) return
    segment.mirror.alive = false
    this.#shown.delete(segment.mirror)
    segment.mirror = undefined
    segment.objects.clear()
  }

  #count(segment: Segment): void {
    this.bytes -= segment.counted
    segment.counted = segment.residentBytes
    this.bytes += segment.counted
  }

  /** It costs nothing that the budget could give back. */
  uncount(segment: Segment): void {
    this.bytes -= segment.counted
    segment.counted = 0
  }
}
