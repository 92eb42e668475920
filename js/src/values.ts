/**
 * Counter, Text and LiveSet: the containers that are objects with methods, as drafts and live.
 *
 * `counter()`, `text()` and `set()` return drafts, usable at once; assigned to a place in a heap they become the live object
 * of that place. Reads come from the mirror, writes go through `write.ts`.
 */

import { KIND, wellFormed } from './edge.js'
import { checkMember } from './input.js'
import { compareMembers, isAttached, sortedMembers, type CounterNode, type Member, type Node, type SetNode, type TextNode } from './mirror.js'
import { DRAFT, NODE, type Draft } from './symbols.js'
import { addToCounter, excludeMember, includeMember, spliceText } from './write.js'
import { smallestDiff } from './diff.js'
import type { Anchor, Counter, LiveSet, Text } from './types.js'

const INSPECT = Symbol.for('nodejs.util.inspect.custom')

/** A counter that starts at `base`: assign it to a key or push it to a list. */
export function counter(base = 0): Counter {
  if (typeof base !== 'number' || !Number.isFinite(base)) throw new TypeError('counter(base): base is a finite number')
  return new CounterObject(undefined, base)
}

/** A text that reads `s`. */
export function text(s = ''): Text {
  if (typeof s !== 'string') throw new TypeError('text(s): s is a string')
  return new TextObject(undefined, wellFormed(s))
}

/** A set of strings, numbers or booleans. */
export function set<T extends string | number | boolean>(v: Iterable<T> = []): LiveSet<T> {
  const members = new Set<Member>()
  for (const member of v) members.add(checkMember(member))
  return new SetObject(undefined, members) as unknown as LiveSet<T>
}

export class CounterObject implements Counter {
  #node: CounterNode | undefined
  #base: number

  constructor(node: CounterNode | undefined, base = 0) {
    this.#node = node
    this.#base = base
  }

  get value(): number {
    return this.#node === undefined ? this.#base : this.#node.value
  }

  add(n = 1): void {
    if (typeof n !== 'number' || !Number.isFinite(n)) throw new TypeError('counter.add(n): n is a finite number')
    if (this.#node === undefined) this.#base += n
    else addToCounter(this.#node, n)
  }

  valueOf(): number {
    return this.value
  }

  toJSON(): number {
    return this.value
  }

  toString(): string {
    return String(this.value)
  }

  get [NODE](): Node | undefined {
    return this.#node
  }

  get [DRAFT](): Draft {
    return { kind: KIND.counter, content: this.value, plain: () => this.value, bind: node => bindLive(this, this.#node = node as CounterNode | undefined) }
  }

  [INSPECT](): string {
    return `Counter(${this.value})`
  }
}

export class TextObject implements Text {
  #node: TextNode | undefined
  #draft: string

  constructor(node: TextNode | undefined, draft = '') {
    this.#node = node
    this.#draft = draft
  }

  get length(): number {
    return this.toString().length
  }

  insert(at: number, s: string): void {
    this.splice(at, 0, s)
  }

  delete(at: number, n: number): void {
    this.splice(at, n, '')
  }

  splice(at: number, n: number, s: string): void {
    if (typeof s !== 'string') throw new TypeError('text.splice(at, n, s): s is a string')
    const now = this.toString()
    if (!(Number.isInteger(at) && at >= 0 && at <= now.length)) throw new RangeError(`index ${at} is outside the text of ${now.length}`)
    if (!(Number.isInteger(n) && n >= 0 && at + n <= now.length)) throw new RangeError(`${n} units from ${at} reach outside the text of ${now.length}`)
    const start = cutBefore(now, at)
    this.#splice(start, cutBefore(now, at + n) - start, s)
  }

  update(s: string): void {
    if (typeof s !== 'string') throw new TypeError('text.update(s): s is a string')
    let shift = 0
    for (const { at, removed, inserted } of smallestDiff(this.toString(), wellFormed(s))) {
      this.#splice(at + shift, removed, inserted)
      shift += inserted.length - removed
    }
  }

  anchor(at: number): Anchor {
    const node = this.#node
    if (node === undefined) throw new TypeError('text.anchor(): assign the text to its place first')
    if (!(Number.isInteger(at) && at >= 0 && at <= node.text.length)) throw new RangeError(`index ${at} is outside the text of ${node.text.length}`)
    return new AnchorObject(node, cutBefore(node.text, at))
  }

  #splice(at: number, n: number, s: string): void {
    if (this.#node !== undefined) spliceText(this.#node, at, n, s)
    else this.#draft = this.#draft.slice(0, at) + wellFormed(s) + this.#draft.slice(at + n)
  }

  toString(): string {
    return this.#node === undefined ? this.#draft : this.#node.text
  }

  toJSON(): string {
    return this.toString()
  }

  get [NODE](): Node | undefined {
    return this.#node
  }

  get [DRAFT](): Draft {
    return { kind: KIND.text, content: this.toString(), plain: () => this.toString(), bind: node => bindLive(this, this.#node = node as TextNode | undefined) }
  }

  [INSPECT](): string {
    return `Text(${JSON.stringify(this.toString())})`
  }
}

class AnchorObject implements Anchor {
  readonly #place: { index: number }
  readonly #node: TextNode

  constructor(node: TextNode, index: number) {
    this.#node = node
    this.#place = { index }
    node.anchors ??= new Set()
    node.anchors.add(new WeakRef(this.#place))
  }

  get index(): number | undefined {
    return isAttached(this.#node) ? this.#place.index : undefined
  }

  toString(): string {
    return String(this.#place.index)
  }
}

export class SetObject implements LiveSet<Member> {
  #node: SetNode | undefined
  #draft: Set<Member>

  constructor(node: SetNode | undefined, draft: Set<Member> = new Set()) {
    this.#node = node
    this.#draft = draft
  }

  get #members(): ReadonlySet<Member> {
    return this.#node === undefined ? this.#draft : this.#node.members
  }

  get size(): number {
    return this.#members.size
  }

  has(v: Member): boolean {
    return this.#members.has(typeof v === 'string' ? wellFormed(v) : v)
  }

  add(v: Member): this {
    if (this.#node === undefined) this.#draft.add(checkMember(v))
    else includeMember(this.#node, v)
    return this
  }

  delete(v: Member): boolean {
    return this.#node === undefined ? this.#draft.delete(checkMember(v)) : excludeMember(this.#node, v)
  }

  [Symbol.iterator](): IterableIterator<Member> {
    const members = this.#node === undefined ? [...this.#draft].sort(compareMembers) : sortedMembers(this.#node)
    return members[Symbol.iterator]()
  }

  toJSON(): Member[] {
    return [...this]
  }

  get [NODE](): Node | undefined {
    return this.#node
  }

  get [DRAFT](): Draft {
    return { kind: KIND.set, content: this.#members, plain: () => Object.freeze([...this]), bind: node => bindLive(this, this.#node = node as SetNode | undefined) }
  }

  [INSPECT](): Set<Member> {
    return new Set(this)
  }
}

function bindLive(object: object, node: Node | undefined): void {
  if (node !== undefined) {
    node.live = new WeakRef(object)
    node.mirror.handedOut.push(node)
  }
}

/** A cut inside a surrogate pair moves to its start. */
function cutBefore(s: string, at: number): number {
  const inside = at > 0 && at < s.length && (s.charCodeAt(at) & 0xfc00) === 0xdc00 && (s.charCodeAt(at - 1) & 0xfc00) === 0xd800
  return inside ? at - 1 : at
}
