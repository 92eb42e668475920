/**
 * Input: what a program assigns, checked, copied into mirror nodes and encoded, in one walk.
 *
 * Takes plain objects and arrays, scalars, Dates, bytes, Refs and the drafts of `counter()`, `text()` and `set()`; anything
 * else is a TypeError that names the path, before anything was changed. Containers take handles in the order of the walk,
 * as wasm does when it reads the same bytes. An `Intake` is dropped whole if one of its values fails.
 */

import { KIND, LIMIT, TAG, utf8Length, wellFormed, type Kind, type Writer } from './edge.js'
import { HeapError } from './errors.js'
import { HeapRef, type RefHome } from './refs.js'
import { draftOf, nodeOf, type Draft } from './symbols.js'
import { decodeId } from './uuid.js'
import type { Encoded } from './batch.js'
import type { ListNode, MapNode, Member, Mirror, Node, SetNode, Stored, TextNode, CounterNode } from './mirror.js'

const I64_MIN = -(2n ** 63n)
const I64_MAX = 2n ** 63n - 1n

type Step = string | number

/**
 * About how many bytes things take in an engine's delta beside what they are here: names, ids and clocks. What a commit
 * weighs exactly only the engine can tell; these are for splitting what is too much before it gets there.
 */
export const WEIGHT = {
  container: 64, element: 14, member: 90,
  /** A key of a literal; of one with many keys most are registers of their own. */
  key: 8, register: 48, manyKeys: 1000,
} as const

/** Reads the values of one write into a segment. */
export class Intake {
  readonly #w: Writer
  readonly #start: number
  readonly #path: Step[]
  readonly #within: object[] = []
  readonly #drafts: [Draft, Node][] = []
  readonly #handles: number
  #containers = false
  #weight = 0

  constructor(readonly mirror: Mirror, readonly home: RefHome, w: Writer, at: readonly Step[], readonly options: { emptyTexts?: boolean } = {}) {
    this.#w = w
    this.#start = w.length
    this.#path = [...at]
    this.#handles = mirror.nextHandle
  }

  /** One value, as it is stored; its bytes go behind those before it. */
  value(value: unknown): Stored {
    switch (typeof value) {
      case 'boolean':
        this.#w.u8(value ? TAG.true : TAG.false)
        return value
      case 'number':
        this.#w.number(value)
        return value
      case 'string': {
        const text = wellFormed(value)
        this.#limit(text.length * 3 > LIMIT.valueBytes ? utf8Length(text) : 0)
        this.#w.u8(TAG.str).str(text)
        return text
      }
      case 'bigint':
        if (value < I64_MIN || value > I64_MAX) throw new RangeError(`${this.#where()}: a bigint outside the range of 64 bits`)
        this.#w.bigint(value)
        return value
      case 'object':
        return value === null ? this.#null() : this.#object(value)
      default:
        throw this.#refuse(value === undefined ? 'undefined, which only a key can be set to (that deletes it)' : `a ${typeof value}`)
    }
  }

  /** Steps into a place for error messages. */
  at<T>(step: Step, read: () => T): T {
    this.#path.push(step)
    const result = read()
    this.#path.pop()
    return result
  }

  /** About how many bytes of an engine's delta were read so far. */
  get size(): number {
    return this.#w.length - this.#start + this.#weight
  }

  /** What was read; from here on its drafts are live, until `undo` is run. */
  finish(undo: (() => void)[] | undefined): Encoded {
    for (const [draft, node] of this.#drafts) draft.bind(node)
    if (this.#drafts.length > 0) undo?.push(() => { for (const [draft] of this.#drafts) draft.bind(undefined) })
    return { start: this.#start, end: this.#w.length, containers: this.#containers, weight: this.#weight }
  }

  /** Gives the handles back that were taken. */
  drop(): void {
    this.mirror.truncate(this.#handles)
    this.#w.truncate(this.#start)
  }

  #null(): null {
    this.#w.u8(TAG.null)
    return null
  }

  #object(value: object): Stored {
    if (value instanceof HeapRef) return this.#ref(value)
    if (nodeOf(value) !== undefined) throw alreadyInHeap(this.#where())
    if (value instanceof Date) {
      this.#w.u8(TAG.date).f64(value.getTime())
      return new Date(value.getTime())
    }
    if (value instanceof Uint8Array) {
      this.#limit(value.length)
      const copy = new Uint8Array(value)
      this.#w.u8(TAG.bytes).bytes(copy)
      return copy
    }
    const draft = draftOf(value)
    if (draft !== undefined) return this.#draft(draft)
    if (this.#within.includes(value)) throw new TypeError(`${this.#where()}: the value contains itself; store a Ref (heap.alloc) to point back`)
    if (this.#within.length >= LIMIT.depth) throw new HeapError('ERR_TOO_LARGE', `${this.#where()}: nested deeper than ${LIMIT.depth} levels; put parts into segments of their own with heap.alloc`)
    if (Array.isArray(value)) return this.#list(value)
    if (!isPlain(value)) throw this.#refuse(`an instance of ${className(value)}`)
    return this.#map(value as Record<string, unknown>)
  }

  #ref(ref: HeapRef): HeapRef {
    if (!ref.isOf(this.home)) throw new TypeError(`${this.#where()}: a Ref of another heap (${ref.heap}); refs point within one heap`)
    this.#w.u8(TAG.ref).raw(decodeId(ref.segment)!)
    if (ref.object === ref.segment) this.#w.u8(0)
    else this.#w.u8(1).raw(decodeId(ref.object)!)
    return ref
  }

  #container<K extends Kind>(kind: K): Node & { kind: K } {
    this.#containers = true
    this.#weight += WEIGHT.container
    this.#w.u8(TAG.container).u8(kind)
    return this.mirror.create(kind) as Node & { kind: K }
  }

  #list(values: readonly unknown[]): ListNode {
    const node = this.#container(KIND.list)
    this.#w.varint(values.length)
    this.#weight += values.length * WEIGHT.element
    this.#within.push(values)
    for (let i = 0; i < values.length; i++) node.items.push(adopt(node, this.at(i, () => this.value(values[i]))))
    this.#within.pop()
    return node
  }

  #map(value: Record<string, unknown>): MapNode {
    const node = this.#container(KIND.map)
    if (Object.getOwnPropertySymbols(value).length > 0) throw this.#refuse('an object with symbols as keys')
    const keys = Object.keys(value).filter(key => value[key] !== undefined)
    this.#w.varint(keys.length)
    this.#weight += keys.length * (keys.length > WEIGHT.manyKeys ? WEIGHT.register : WEIGHT.key)
    this.#within.push(value)
    for (const key of keys) {
      const name = checkKey(key)
      this.at(name, () => {
        this.#w.str(name)
        node.bag[name] = adopt(node, this.value(value[key]))
      })
    }
    this.#within.pop()
    return node
  }

  #draft(draft: Draft): Node {
    const node = this.#container(draft.kind) as TextNode | CounterNode | SetNode
    if (node.kind === KIND.counter) {
      node.value = draft.content as number
      this.#w.f64(node.value)
    } else if (node.kind === KIND.text) {
      node.text = wellFormed(draft.content as string)
      if (this.options.emptyTexts === true && node.text !== '') {
        throw new TypeError(`${this.#where()}: a text in \`initial\` must be empty, or every process that opens the heap would insert it again; write it once after open`)
      }
      this.#w.str(node.text)
    } else {
      node.members = new Set(draft.content as ReadonlySet<Member>)
      this.#w.varint(node.members.size)
      this.#weight += node.members.size * WEIGHT.member
      for (const member of node.members) this.value(member)
    }
    this.#drafts.push([draft, node])
    return node
  }

  #limit(bytes: number): void {
    if (bytes > LIMIT.valueBytes) throw new HeapError('ERR_TOO_LARGE', `${this.#where()}: a value of ${bytes} bytes; one value may have ${LIMIT.valueBytes}`, { details: { bytes, max: LIMIT.valueBytes } })
  }

  #where(): string {
    return this.#path.length === 0 ? 'the value' : formatPath(this.#path)
  }

  #refuse(what: string): TypeError {
    return new TypeError(`${this.#where()}: cannot store ${what}; a heap holds plain objects, arrays, strings, numbers, booleans, null, bigint, Date, Uint8Array, Ref, counter(), text() and set()`)
  }
}

/** A path as a program would write it. */
export function formatPath(path: readonly Step[]): string {
  let out = ''
  for (const step of path) {
    if (typeof step === 'number') out += `[${step}]`
    else if (/^[A-Za-z_$][\w$]*$/.test(step)) out += out === '' ? step : `.${step}`
    else out += `[${JSON.stringify(step)}]`
  }
  return out
}

/** A key as it is stored. */
export function checkKey(key: string): string {
  const name = wellFormed(key)
  if (name.length * 3 > LIMIT.keyBytes && utf8Length(name) > LIMIT.keyBytes) {
    throw new HeapError('ERR_TOO_LARGE', `a key of ${utf8Length(name)} bytes; a key may have ${LIMIT.keyBytes}`)
  }
  return name
}

/** A member of a set as it is stored. */
export function checkMember(value: unknown): Member {
  if (typeof value === 'string') return wellFormed(value)
  if (typeof value === 'number') return value === 0 ? 0 : value
  if (typeof value === 'boolean') return value
  throw new TypeError(`a set holds strings, numbers and booleans, not ${value === null ? 'null' : typeof value}; use a map or a list`)
}

/** The error for assigning what is in a heap already. */
export function alreadyInHeap(where: string): TypeError {
  return new TypeError(`${where}: this object is in the heap already, and an object has one place; store heap.refOf(it) to point to it, move(list, from, to) to move it within a list, or snapshot(it) for a copy`)
}

/** A plain object of either realm. */
function isPlain(value: object): boolean {
  const proto: unknown = Object.getPrototypeOf(value)
  return proto === null || proto === Object.prototype || Object.getPrototypeOf(proto) === null
}

function className(value: object): string {
  const name: unknown = (value.constructor as { name?: unknown } | undefined)?.name
  return typeof name === 'string' && name !== '' ? name : 'a class'
}

function adopt(parent: Node, value: Stored): Stored {
  if (typeof value === 'object' && value !== null && 'mirror' in value) {
    value.places = 1
    value.parent = parent
  }
  return value
}

