/**
 * The keeper: what a replica goes on from when its instance is lost, as bytes outside of it.
 *
 * After a trap an instance's memory is not to be trusted, so nothing is asked of it. The module therefore hands out with every
 * answer what another instance would need (`core/src/replica/outside.rs`), and this holds it: where the replica stands, its
 * unacknowledged commits, and for each segment that is here the bytes its document was made of. Nothing in here knows what
 * the bytes mean. What comes to a segment is appended; when that outgrows the document, the module is asked to say it in fewer.
 *
 * ```text
 * wasm ── Keep ──► Keeper ── resume, restore ──► another instance
 * ```
 */

import { Reader, Writer } from './edge.js'

/** What came to a segment may be this much, or as much as its document, before it is all told anew. */
const MORE_BYTES = 128 * 1024
const NOTHING = new Uint8Array()

interface Kept {
  readonly document: Uint8Array
  /** What came to it since. */
  more: Writer | undefined
  /** How often something came. */
  changes: number
  /** It was asked to be told anew. */
  asked: boolean
}

/** What is kept: numbers of the record (`core/src/edge.rs`). */
const WHAT = { lives: 0, place: 1, commit: 2, segment: 3, made: 4 } as const

export class Keeper {
  #lives = NOTHING
  #place = NOTHING
  /** Commits of this replica that have ended. */
  #made = new Writer(256)
  /** By seq, ascending. */
  readonly #commits = new Map<number, Uint8Array>()
  readonly #segments = new Map<number, Kept>()
  readonly #large: (segment: number) => void

  /** `large`: so much has come to a segment that it is worth being told anew. Asked once, until it is. */
  constructor(large: (segment: number) => void) {
    this.#large = large
  }

  /** Record `Keep`. */
  take(r: Reader): void {
    switch (r.u8()) {
      case WHAT.lives: this.#lives = r.rest().slice(); break
      case WHAT.place: this.#place = r.rest().slice(); break
      case WHAT.commit: this.#takeCommit(r.varint(), r.rest()); break
      case WHAT.segment: this.#takeSegment(r.varint(), r.u8() === 1, r.rest()); break
      case WHAT.made: {
        if (r.u8() === 1) this.#made.truncate()
        this.#made.raw(r.rest())
        break
      }
    }
  }

  #takeCommit(seq: number, bytes: Uint8Array): void {
    if (bytes.length === 0) this.#commits.delete(seq)
    else this.#commits.set(seq, bytes.slice())
  }

  #takeSegment(segment: number, anew: boolean, bytes: Uint8Array): void {
    const kept = this.#segments.get(segment)
    if (anew || kept === undefined) {
      this.#segments.set(segment, { document: bytes.slice(), more: undefined, changes: (kept?.changes ?? 0) + 1, asked: false })
      return
    }
    const more = (kept.more ??= new Writer(bytes.length * 2))
    more.raw(bytes)
    kept.changes += 1
    if (kept.asked || more.length <= Math.max(MORE_BYTES, kept.document.length)) return
    kept.asked = true
    this.#large(segment)
  }

  /** Commits up to this one are durable. */
  acked(seq: number): void {
    for (const known of this.#commits.keys()) {
      if (known > seq) break
      this.#commits.delete(known)
    }
  }

  /** It is refused, or nobody can say whether it is saved. */
  refused(seq: number): void {
    this.#commits.delete(seq)
  }

  /** A segment is not here any more. */
  gone(segment: number): void {
    this.#segments.delete(segment)
  }

  /** Nothing goes on from this any more. */
  clear(): void {
    this.#lives = this.#place = NOTHING
    this.#made = new Writer(16)
    this.#commits.clear()
    this.#segments.clear()
  }

  has(segment: number): boolean {
    return this.#segments.has(segment)
  }

  /** How often something came to a segment: the same number, the same content. */
  changes(segment: number): number {
    return this.#segments.get(segment)?.changes ?? 0
  }

  /** Bytes that are kept. */
  get bytes(): number {
    let bytes = this.#lives.length + this.#place.length + this.#made.length
    for (const commit of this.#commits.values()) bytes += commit.length
    for (const { document, more } of this.#segments.values()) bytes += document.length + (more?.length ?? 0)
    return bytes
  }

  /** `lives place made` of operation `resume`. */
  writePlace(w: Writer): void {
    w.bytes(this.#lives).bytes(this.#place).bytes(this.#made.view())
  }

  /** `commits` of operation `resume`. */
  writeCommits(w: Writer): void {
    w.varint(this.#commits.size)
    for (const commit of this.#commits.values()) w.bytes(commit)
  }

  /** What operation `restore` takes. */
  writeSegment(w: Writer, segment: number): void {
    const { document, more } = this.#segments.get(segment)!
    w.raw(document)
    if (more !== undefined) w.raw(more.view())
  }
}
