/**
 * Refs: pointers to objects of a heap, printed as `coheap:<segment>` (its first object) or `coheap:<segment>#<object>`.
 *
 * A Ref is a name. Making, printing, storing and comparing one loads nothing, and equal names are the same Ref object while
 * anybody holds it, so `===`, `Set`, `Map` and `indexOf` work (S1). What it points to is asked of its heap each time.
 */

import { decodeId, type Id } from './uuid.js'
import type { Ref, Wait } from './types.js'

/** What a Ref asks its heap. */
export interface RefHome {
  readonly heapName: string
  peekRef(ref: HeapRef): object | undefined
  valueOfRef(ref: HeapRef): object
  loadRef(ref: HeapRef, wait: Wait | undefined): Promise<object>
}

export class HeapRef<T extends object = object> implements Ref<T> {
  readonly #home: RefHome
  /** @internal */
  readonly segment: Id
  /** @internal Equal to `segment` for the segment's first object. */
  readonly object: Id

  constructor(home: RefHome, segment: Id, object: Id) {
    this.#home = home
    this.segment = segment
    this.object = object
  }

  get id(): string {
    return this.segment === this.object ? `coheap:${this.segment}` : `coheap:${this.segment}#${this.object}`
  }

  get heap(): string {
    return this.#home.heapName
  }

  get value(): T {
    return this.#home.valueOfRef(this) as T
  }

  peek(): T | undefined {
    return this.#home.peekRef(this) as T | undefined
  }

  load(wait?: Wait): Promise<T> {
    return this.#home.loadRef(this, wait) as Promise<T>
  }

  toJSON(): { $ref: string } {
    return { $ref: this.id }
  }

  toString(): string {
    return this.id
  }

  [Symbol.for('nodejs.util.inspect.custom')](): string {
    return `Ref(${this.id})`
  }

  /** @internal Whether it belongs to a heap. */
  isOf(home: RefHome): boolean {
    return this.#home === home
  }
}

/** One Ref per name, kept as long as somebody holds it. */
export class RefTable {
  readonly #refs = new Map<string, WeakRef<HeapRef>>()
  readonly #gone = new FinalizationRegistry<string>(name => {
    if (this.#refs.get(name)?.deref() === undefined) this.#refs.delete(name)
  })

  constructor(readonly home: RefHome) {}

  of(segment: Id, object: Id = segment): HeapRef {
    const name = segment === object ? segment : segment + object
    const known = this.#refs.get(name)?.deref()
    if (known !== undefined) return known
    const ref = new HeapRef(this.home, segment, object)
    this.#refs.set(name, new WeakRef(ref))
    this.#gone.register(ref, name)
    return ref
  }

  /** The Ref that was printed as `text`; TypeError if none was. */
  parse(text: string): HeapRef {
    const match = /^coheap:([A-Za-z0-9_-]{22})(?:#([A-Za-z0-9_-]{22}))?$/.exec(String(text))
    const segment = match?.[1]
    const object = match?.[2] ?? segment
    if (segment === undefined || object === undefined || decodeId(segment) === undefined || decodeId(object) === undefined) {
      throw new TypeError(`not a ref of a heap: ${JSON.stringify(String(text).slice(0, 80))}; one looks like coheap:<22 characters>`)
    }
    return this.of(segment, object)
  }
}
