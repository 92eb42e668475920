/**
 * The mirror: a segment's content as plain JavaScript values, so that reads never cross into wasm.
 *
 * Owns the nodes (one per map, list, text, counter and set, named by the edge's handles), who holds whom, and the snapshots
 * cached on them. Changes come through the methods below and from nowhere else, whether a program wrote or a patch arrived;
 * each keeps parent links, drops stale snapshots up to the root, tells the journal how to undo it (`undo`, while a batch is
 * open) and what happened (`log`, while somebody watches). It is never a second truth: `patches.ts` compares it with the
 * engine's dump in tests and debug runs.
 *
 * ```text
 * Mirror ─ nodes[0] map ─┬─ 'title': 'x'
 *                        └─ 'jobs': list ─┬─ Ref
 *                                         └─ map …         node.parent points back up; a detached node has none
 * ```
 *
 * Nodes made near others (S1) have no parent either and are there all the same: `near` says which.
 *
 * Maps are kept in objects without a prototype (`Bag`), so `__proto__` is a key like any other. Next: `patches.ts` (changes
 * from elsewhere), `write.ts` (changes of the program), `proxy.ts` (what a program sees).
 */

import { KIND, type Kind } from './edge.js'
import { HeapError } from './errors.js'
import type { HeapRef } from './refs.js'
import type { Id } from './uuid.js'

/** What a key or a place in a list holds, as the mirror keeps it. Dates and bytes never leave without being copied. */
export type Stored = null | boolean | number | string | bigint | Date | Uint8Array | HeapRef | Node
export type Node = MapNode | ListNode | TextNode | CounterNode | SetNode
/** What a set may hold. */
export type Member = string | number | boolean

/** Objects with own properties only: reading an absent key finds nothing, whatever its name. */
export type Bag = Record<string, Stored>
const Bag = function () {} as unknown as new () => Bag
Bag.prototype = Object.create(null) as Bag

abstract class NodeBase {
  /** The node that holds this one; `undefined` for the first object, for what was made near another, and for what is detached. */
  parent: Node | undefined = undefined
  /** In how many places it is held: 0 is detached; for a moment during a patch it may be 2. */
  places = 0
  /** The snapshot, until something in it changes. */
  snap: unknown = undefined
  /** The object that programs hold for it. */
  live: WeakRef<object> | undefined = undefined
  /** The same, until the end of the turn in which it was asked for: a WeakRef is slow to read. */
  recent: object | undefined = undefined
  /** The object's id, once asked for. */
  id: Id | undefined = undefined

  constructor(readonly mirror: Mirror, readonly handle: number) {}
}

export class MapNode extends NodeBase {
  readonly kind = KIND.map
  bag: Bag = new Bag()
}

export class ListNode extends NodeBase {
  readonly kind = KIND.list
  items: Stored[] = []
}

export class TextNode extends NodeBase {
  readonly kind = KIND.text
  text = ''
  /** Positions that move with the text. */
  anchors: Set<WeakRef<{ index: number }>> | undefined = undefined
}

export class CounterNode extends NodeBase {
  readonly kind = KIND.counter
  value = 0
}

export class SetNode extends NodeBase {
  readonly kind = KIND.set
  members = new Set<Member>()
}

/** What happened to one node, before it is told to anybody. Values are snapshots. */
export type Happening =
  | { op: 'set'; key: string | number; value: unknown; before: unknown }
  | { op: 'delete'; key: string; before: unknown }
  | { op: 'insert'; index: number; values: unknown[] }
  | { op: 'remove'; index: number; values: unknown[] }
  | { op: 'move'; from: number; to: number }
  | { op: 'add'; by: number }
  | { op: 'splice'; index: number; removed: number; text: string }

/** A happening with the way to it: `chain` from the first object to the node, `path` the keys between them. */
export interface Logged { readonly chain: readonly Node[]; readonly path: readonly (string | number)[]; readonly what: Happening }

/** What the mirror needs to know of snapshots, set by `snapshot.ts` (which needs the mirror's types). */
export const snapshots: { of: (stored: Stored) => unknown } = { of: stored => stored }

export class Mirror {
  readonly nodes: (Node | undefined)[] = []
  /** Nodes that are there although nothing holds them, by id. */
  readonly near = new Map<Id, Node>()
  /** While set, every change adds how to undo it. */
  undo: (() => void)[] | undefined = undefined
  /** While set, every change is added. */
  log: Logged[] | undefined = undefined
  /** False once the segment was evicted or deleted: its nodes keep their last values. */
  alive = true
  /** What a write is told that comes when it is not alive, if it is more than that the object is gone. */
  ended: HeapError | undefined = undefined
  /** Nodes that live objects were made for, as far as `isHeld` has not found them to be gone. */
  readonly handedOut: Node[] = []

  /** Whether a program may still hold a live object of this segment. */
  get isHeld(): boolean {
    for (let node = this.handedOut.at(-1); node !== undefined; node = this.handedOut.at(-1)) {
      if (node.live?.deref() !== undefined) return true
      node.live = undefined
      this.handedOut.pop()
    }
    return false
  }

  /** The first object. */
  get root(): Node | undefined {
    return this.nodes[0]
  }

  /** The handle that the next container takes. */
  get nextHandle(): number {
    return this.nodes.length
  }

  /** Makes a node; the caller puts it somewhere. */
  create(kind: Kind, handle: number = this.nodes.length): Node {
    const node = kind === KIND.map ? new MapNode(this, handle)
      : kind === KIND.list ? new ListNode(this, handle)
      : kind === KIND.text ? new TextNode(this, handle)
      : kind === KIND.counter ? new CounterNode(this, handle)
      : new SetNode(this, handle)
    if (handle === 0) node.places = 1
    while (this.nodes.length < handle) this.nodes.push(undefined)
    this.nodes[handle] = node
    return node
  }

  /** Forgets the nodes from a handle on: the batch that made them did not happen. */
  truncate(handles: number): void {
    this.nodes.length = handles
  }

  /** A node is there from now on although nothing holds it. */
  place(id: Id, node: Node): void {
    const before = this.near.get(id)
    if (before === node) return
    detach(before)
    node.id = id
    node.places += 1
    this.near.set(id, node)
    this.undo?.push(() => {
      detach(node)
      this.near.delete(id)
    })
  }

  // Maps

  setKey(node: MapNode, key: string, value: Stored): void {
    const before = node.bag[key]
    if (this.log !== undefined) this.#note(node, { op: 'set', key, value: snapshots.of(value), before: before === undefined ? undefined : snapshots.of(before) })
    attach(value, node)
    detach(before)
    node.bag[key] = value
    touch(node)
    this.undo?.push(() => {
      detach(value)
      if (before === undefined) delete node.bag[key]
      else {
        node.bag[key] = before
        attach(before, node)
      }
      touch(node)
    })
  }

  deleteKey(node: MapNode, key: string): void {
    const before = node.bag[key]
    if (before === undefined) return
    if (this.log !== undefined) this.#note(node, { op: 'delete', key, before: snapshots.of(before) })
    detach(before)
    delete node.bag[key]
    touch(node)
    this.undo?.push(() => {
      node.bag[key] = before
      attach(before, node)
      touch(node)
    })
  }

  // Lists

  insert(node: ListNode, index: number, values: readonly Stored[]): void {
    if (this.log !== undefined) this.#note(node, { op: 'insert', index, values: values.map(snapshots.of) })
    for (const value of values) attach(value, node)
    insertAll(node.items, index, values)
    touch(node)
    this.undo?.push(() => {
      for (const value of node.items.splice(index, values.length)) detach(value)
      touch(node)
    })
  }

  remove(node: ListNode, index: number, count: number): Stored[] {
    if (this.log !== undefined) this.#note(node, { op: 'remove', index, values: node.items.slice(index, index + count).map(snapshots.of) })
    const removed = node.items.splice(index, count)
    for (const value of removed) detach(value)
    touch(node)
    this.undo?.push(() => {
      for (const value of removed) attach(value, node)
      insertAll(node.items, index, removed)
      touch(node)
    })
    return removed
  }

  put(node: ListNode, index: number, value: Stored): void {
    const before = node.items[index]!
    if (this.log !== undefined) this.#note(node, { op: 'set', key: index, value: snapshots.of(value), before: snapshots.of(before) })
    attach(value, node)
    detach(before)
    node.items[index] = value
    touch(node)
    this.undo?.push(() => {
      detach(value)
      node.items[index] = before
      attach(before, node)
      touch(node)
    })
  }

  move(node: ListNode, from: number, to: number): void {
    if (this.log !== undefined) this.#note(node, { op: 'move', from, to })
    node.items.splice(to, 0, ...node.items.splice(from, 1))
    touch(node)
    this.undo?.push(() => {
      node.items.splice(from, 0, ...node.items.splice(to, 1))
      touch(node)
    })
  }

  // Texts, counters, sets

  splice(node: TextNode, index: number, removed: number, inserted: string): void {
    if (this.log !== undefined) this.#note(node, { op: 'splice', index, removed, text: inserted })
    const before = node.text
    node.text = before.slice(0, index) + inserted + before.slice(index + removed)
    shiftAnchors(node, index, removed, inserted.length)
    touch(node)
    this.undo?.push(() => {
      node.text = before
      shiftAnchors(node, index, inserted.length, removed)
      touch(node)
    })
  }

  total(node: CounterNode, value: number): void {
    const before = node.value
    if (this.log !== undefined) this.#note(node, { op: 'add', by: value - before })
    node.value = value
    touch(node)
    this.undo?.push(() => {
      node.value = before
      touch(node)
    })
  }

  include(node: SetNode, member: Member): void {
    if (node.members.has(member)) return
    node.members.add(member)
    if (this.log !== undefined) this.#note(node, { op: 'insert', index: sortedMembers(node).indexOf(member), values: [member] })
    touch(node)
    this.undo?.push(() => {
      node.members.delete(member)
      touch(node)
    })
  }

  exclude(node: SetNode, member: Member): void {
    if (!node.members.has(member)) return
    if (this.log !== undefined) this.#note(node, { op: 'remove', index: sortedMembers(node).indexOf(member), values: [member] })
    node.members.delete(member)
    touch(node)
    this.undo?.push(() => {
      node.members.add(member)
      touch(node)
    })
  }

  /** Adds to the log what is found out afterwards. */
  note(node: Node, what: Happening): void {
    if (this.log !== undefined) this.#note(node, what)
  }

  /** Forgets what a node holds, without a word to watchers: all of it follows. */
  clear(node: Node): void {
    for (const child of children(node)) detach(child)
    if (node.kind === KIND.map) node.bag = new Bag()
    else if (node.kind === KIND.list) node.items = []
    else if (node.kind === KIND.text) node.text = ''
    else if (node.kind === KIND.counter) node.value = 0
    else node.members = new Set()
    touch(node)
  }

  #note(node: Node, what: Happening): void {
    const chain: Node[] = [node]
    const path: (string | number)[] = []
    for (let below: Node = node, above = node.parent; above !== undefined; below = above, above = above.parent) {
      path.push(keyOf(above, below))
      chain.push(above)
    }
    this.log!.push({ chain: chain.reverse(), path: path.reverse(), what })
  }
}

/** Whether a stored value is a container. */
export function isNode(value: unknown): value is Node {
  return value instanceof NodeBase
}

/** Whether a node is still part of its segment, and the segment is here. */
export function isAttached(node: Node): boolean {
  let top = node
  while (top.parent !== undefined) top = top.parent
  return (top.handle === 0 || isNear(top)) && top.mirror.alive
}

function isNear(node: Node): boolean {
  return node.id !== undefined && node.mirror.near.get(node.id) === node
}

/** Throws unless a node can be edited. */
export function mustBeAttached(node: Node): void {
  if (isAttached(node)) return
  if (node.mirror.ended !== undefined) throw node.mirror.ended
  throw new HeapError('ERR_DELETED', 'this object was deleted or replaced: it shows its last values and takes no edits; use heap.root or a Ref to reach what is there now')
}

/** The keys of a map in the order every replica has (S6). */
export function sortedKeys(node: MapNode): string[] {
  const keys = Object.keys(node.bag)
  let start = 0
  while (start < keys.length && isIndexKey(keys[start]!)) start++
  for (let i = start + 1; i < keys.length; i++) {
    if (keys[i - 1]! < keys[i]!) continue
    const rest = keys.splice(start).sort((a, b) => (a < b ? -1 : 1))
    return keys.concat(rest)
  }
  return keys
}

/** A set's members in one order everywhere: booleans, numbers, strings, each ascending. */
export function sortedMembers(node: SetNode): Member[] {
  return [...node.members].sort(compareMembers)
}

const TYPE_ORDER: Readonly<Record<string, number>> = { boolean: 0, number: 1, string: 2 }

export function compareMembers(a: Member, b: Member): number {
  const types = TYPE_ORDER[typeof a]! - TYPE_ORDER[typeof b]!
  if (types !== 0) return types
  if (a === b) return 0
  if (Number.isNaN(a)) return 1
  if (Number.isNaN(b)) return -1
  return a < b ? -1 : 1
}

/** Whether JavaScript itself puts this key first, by number. */
function isIndexKey(key: string): boolean {
  const code = key.charCodeAt(0)
  if (!(code >= 48 && code <= 57)) return false
  const n = Number(key)
  return n < 4_294_967_295 && String(n) === key
}

/** The containers directly within a node. */
export function children(node: Node): Node[] {
  if (node.kind === KIND.map) return Object.values(node.bag).filter(isNode)
  if (node.kind === KIND.list) return node.items.filter(isNode)
  return []
}

function keyOf(above: Node, below: Node): string | number {
  if (above.kind === KIND.list) return above.items.indexOf(below)
  if (above.kind === KIND.map) for (const key in above.bag) if (above.bag[key] === below) return key
  return '?'
}

function attach(value: Stored | undefined, parent: Node): void {
  if (!isNode(value)) return
  value.places += 1
  value.parent = parent
}

function detach(value: Stored | undefined): void {
  if (!isNode(value)) return
  value.places -= 1
  if (value.places <= 0) {
    value.places = 0
    value.parent = undefined
  }
}

/** Drops the cached snapshots from a node up: a node that has one has them all the way down. */
function touch(node: Node): void {
  for (let n: Node | undefined = node; n !== undefined && n.snap !== undefined; n = n.parent) n.snap = undefined
}

function insertAll(items: Stored[], index: number, values: readonly Stored[]): void {
  if (index === items.length) for (const value of values) items.push(value)
  else if (values.length < 10_000) items.splice(index, 0, ...values)
  else {
    const tail = items.splice(index)
    for (const value of values) items.push(value)
    for (const value of tail) items.push(value)
  }
}

function shiftAnchors(node: TextNode, index: number, removed: number, inserted: number): void {
  if (node.anchors === undefined) return
  for (const weak of node.anchors) {
    const anchor = weak.deref()
    if (anchor === undefined) node.anchors.delete(weak)
    else if (anchor.index >= index + removed) anchor.index += inserted - removed
    else if (anchor.index > index) anchor.index = index
  }
}
