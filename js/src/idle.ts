/**
 * What is idle goes to rest: a document that nobody has written for a while, here or elsewhere, is kept as bytes, which take a
 * tenth of its memory. Its mirror stays if a program needs it, and is forgotten otherwise; reading it again then makes it anew from
 * the bytes that are here, at once.
 */

import { unrefTimer } from './link.js'
import type { Segment } from './residence.js'

/** A document that nothing has come to for this long is idle. So is a mirror that nobody has looked at from one round to the next. */
export const IDLE_MS = 30_000
/** A round takes no longer at once than this; it goes on in another task. */
const SLICE_MS = 4

/** Whose documents they are. */
export interface House {
  /** Nothing may change just now. */
  readonly busy: boolean
  readonly shown: Iterable<Segment>
  /** Asks the replica to keep a segment as bytes from now on. It may decline. */
  pack(segment: Segment, mirrored: boolean): void
}

export class Idle {
  readonly #house: House
  #timer: ReturnType<typeof setTimeout> | undefined
  #round: Segment[] = []
  #ended = false

  constructor(house: House) {
    this.#house = house
  }

  /** A document was decoded or written. */
  stir(): void {
    if (this.#timer === undefined && !this.#ended) this.#in(IDLE_MS / 2)
  }

  #in(delayMs: number): void {
    this.#timer = setTimeout(() => {
      this.#timer = undefined
      if (!this.#ended) this.#go()
    }, delayMs)
    unrefTimer(this.#timer)
  }

  #go(): void {
    const house = this.#house
    if (this.#round.length === 0) this.#round = [...house.shown].filter(segment => segment.standing === 'here')
    const until = performance.now() + SLICE_MS
    while (this.#round.length > 0 && performance.now() < until) {
      if (house.busy) return this.#in(IDLE_MS / 10)
      this.#look(this.#round.pop()!)
    }
    if (this.#round.length > 0) return this.#in(1)
    for (const segment of house.shown) if (!segment.atRest || !segment.isNeeded) return this.#in(IDLE_MS / 2)
  }

  #look(segment: Segment): void {
    if (segment.standing !== 'here' || performance.now() - segment.changedMs < IDLE_MS) return
    const unread = segment.used === segment.usedBefore
    segment.usedBefore = segment.used
    const mirrored = !unread || segment.isNeeded
    if (!segment.atRest || !mirrored) this.#house.pack(segment, mirrored)
  }

  end(): void {
    this.#ended = true
    this.#round = []
    clearTimeout(this.#timer)
  }
}
