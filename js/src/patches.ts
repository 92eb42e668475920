/**
 * Patches: what wasm says happened, applied to a mirror; and the proof that mirror and engine agree.
 *
 * Patches name objects by handle. A handle that is new makes a node; one that is known is that node again, so the objects a
 * program holds stay the same through catch-ups and undone commits. `core/src/edge.rs` has the grammar.
 */

import { EDIT, KIND, Reader, TAG, type Kind } from './edge.js'
import { HeapError } from './errors.js'
import { children, isNode, type ListNode, type MapNode, type Member, Mirror, type Node, type SetNode, type Stored, type TextNode } from './mirror.js'
import { sameSnapshot, snapshotOf, snapshotOfStored } from './snapshot.js'
import type { HeapRef } from './refs.js'
import type { Id } from './uuid.js'

/** Makes the Ref of a name. */
export type MakeRef = (segment: Id, object: Id) => HeapRef

/** A `done()` that patches told of. */
export interface Mark { readonly group: string; readonly run: string }

/** Applies the patches of one segment; returns the marks among them. */
export function applyPatches(mirror: Mirror, patches: Uint8Array, makeRef: MakeRef): Mark[] {
  const r = new Reader(patches)
  const marks: Mark[] = []
  while (r.left > 0) {
    const op = r.u8()
    if (op === EDIT.mark) marks.push({ group: r.str(), run: r.str() })
    else if (op === EDIT.root) nodeOfKind(mirror, 0, r.u8() as Kind)
    else if (op === EDIT.near) {
      const id = r.id()
      const kind = r.u8() as Kind
      mirror.place(id, nodeOfKind(mirror, r.varint(), kind))
    }
    else applyOne(mirror, op, r, makeRef)
  }
  return marks
}

/** Replaces all a mirror holds by what the patches say; nodes keep their identity, and the values they had if they are gone. */
export function resetMirror(mirror: Mirror, patches: Uint8Array, makeRef: MakeRef): Mark[] {
  const before = mirror.log === undefined ? [] : tops(mirror).map(node => ({ node, snap: snapshotOf(node) }))
  const log = mirror.log
  mirror.log = undefined
  const kept: { node: Node; content: Content }[] = []
  for (const node of mirror.nodes) if (node !== undefined) kept.push({ node, content: contentOf(node) })
  for (const { node } of kept) mirror.clear(node)
  for (const { node } of kept) node.places = node.handle === 0 ? 1 : 0
  mirror.near.clear()
  const marks = applyPatches(mirror, patches, makeRef)
  for (const { node, content } of kept) if (node.places === 0) restore(mirror, node, content)
  mirror.log = log
  const still = new Set(tops(mirror))
  for (const { node, snap } of before) if (still.has(node)) noteDifferences(mirror, node, snap)
  return marks
}

/** Runs what changes mirrors without a word to watchers, and tells their logs what came of it. */
export function notingDifferences(mirrors: readonly Mirror[], change: () => void): void {
  const watched = mirrors.filter(mirror => mirror.log !== undefined).map(mirror => {
    const { log } = mirror
    mirror.log = undefined
    return { mirror, log, before: tops(mirror).map(node => ({ node, snap: snapshotOf(node) })) }
  })
  change()
  for (const { mirror, log, before } of watched) {
    if (!mirror.alive) continue
    mirror.log = log
    const still = new Set(tops(mirror))
    for (const { node, snap } of before) if (still.has(node)) noteDifferences(mirror, node, snap)
  }
}

/** The nodes that are there although nothing holds them: the first object and what was made near another. */
function tops(mirror: Mirror): Node[] {
  return [...(mirror.root === undefined ? [] : [mirror.root]), ...mirror.near.values()]
}

/** Tells the log what a reset changed, by comparing with the snapshot from before. */
function noteDifferences(mirror: Mirror, node: Node, before: unknown): void {
  const now = snapshotOf(node)
  if (sameSnapshot(now, before)) return
  if (node.kind === KIND.map) {
    const old = before as Readonly<Record<string, unknown>>
    for (const key of Object.keys(old)) if (node.bag[key] === undefined) mirror.note(node, { op: 'delete', key, before: old[key] })
    for (const key of Object.keys(node.bag)) {
      const value = node.bag[key]!
      const was = Object.hasOwn(old, key) ? old[key] : undefined
      if (isNode(value) && value.kind === KIND.map && isPlainSnapshot(was)) noteDifferences(mirror, value, was)
      else if (!sameSnapshot(snapshotOfStored(value), was)) mirror.note(node, { op: 'set', key, value: snapshotOfStored(value), before: was })
    }
  } else if (node.kind === KIND.list || node.kind === KIND.set) {
    const was = before as readonly unknown[]
    if (was.length > 0) mirror.note(node, { op: 'remove', index: 0, values: [...was] })
    const values = now as readonly unknown[]
    if (values.length > 0) mirror.note(node, { op: 'insert', index: 0, values: [...values] })
  } else if (node.kind === KIND.text) {
    mirror.note(node, { op: 'splice', index: 0, removed: (before as string).length, text: node.text })
  } else mirror.note(node, { op: 'add', by: node.value - (before as number) })
}

function isPlainSnapshot(value: unknown): boolean {
  return typeof value === 'object' && value !== null && Object.getPrototypeOf(value) === Object.prototype
}

function applyOne(mirror: Mirror, op: number, r: Reader, makeRef: MakeRef): void {
  const handle = r.varint()
  const node = mirror.nodes[handle]
  if (node === undefined) throw mismatch(`a patch for object ${handle}, which is unknown`)
  const value = (): Stored => readValue(mirror, r, makeRef)
  switch (op) {
    case EDIT.set: return mirror.setKey(asMap(node), r.key(), value())
    case EDIT.delete: return mirror.deleteKey(asMap(node), r.key())
    case EDIT.insert: {
      const index = r.varint()
      const values = r.list(value)
      return mirror.insert(asList(node, index), index, values)
    }
    case EDIT.remove: {
      const index = r.varint()
      const count = r.varint()
      mirror.remove(asList(node, index + count), index, count)
      return
    }
    case EDIT.put: {
      const index = r.varint()
      return mirror.put(asList(node, index + 1), index, value())
    }
    case EDIT.move: {
      const from = r.varint()
      const to = r.varint()
      return mirror.move(asList(node, Math.max(from, to) + 1), from, to)
    }
    case EDIT.splice: {
      const index = r.varint()
      const removed = r.varint()
      return mirror.splice(asText(node, index + removed), index, removed, r.str())
    }
    case EDIT.add: {
      if (node.kind !== KIND.counter) throw mismatch('a total for what is no counter')
      return mirror.total(node, r.f64())
    }
    case EDIT.include: return mirror.include(asSet(node), value() as Member)
    case EDIT.exclude: return mirror.exclude(asSet(node), value() as Member)
    case EDIT.clear: return mirror.clear(node)
    default: throw mismatch(`a patch of kind ${op}`)
  }
}

function readValue(mirror: Mirror, r: Reader, makeRef: MakeRef): Stored {
  const tag = r.u8()
  switch (tag) {
    case TAG.null: return null
    case TAG.false: return false
    case TAG.true: return true
    case TAG.f64: return r.f64()
    case TAG.int: return r.zigzag()
    case TAG.str: return r.str()
    case TAG.bigint: return r.zigzagBig()
    case TAG.date: return new Date(r.f64())
    case TAG.bytes: return new Uint8Array(r.bytes())
    case TAG.ref: {
      const segment = r.id()
      return makeRef(segment, r.u8() === 0 ? segment : r.id())
    }
    case TAG.container: {
      const kind = r.u8() as Kind
      return nodeOfKind(mirror, r.varint(), kind)
    }
    default: throw mismatch(`a value of kind ${tag}`)
  }
}

function nodeOfKind(mirror: Mirror, handle: number, kind: Kind): Node {
  const known = mirror.nodes[handle]
  if (known === undefined) return mirror.create(kind, handle)
  if (known.kind !== kind) throw mismatch(`object ${handle} has kind ${known.kind}, not ${kind}`)
  return known
}

function asMap(node: Node): MapNode {
  if (node.kind !== KIND.map) throw mismatch('a key of what is no map')
  return node
}

function asList(node: Node, end: number): ListNode {
  if (node.kind !== KIND.list) throw mismatch('an index of what is no list')
  if (end > node.items.length) throw mismatch(`index ${end} in a list of ${node.items.length}`)
  return node
}

function asText(node: Node, end: number): TextNode {
  if (node.kind !== KIND.text) throw mismatch('a splice of what is no text')
  if (end > node.text.length) throw mismatch(`index ${end} in a text of ${node.text.length}`)
  return node
}

function asSet(node: Node): SetNode {
  if (node.kind !== KIND.set) throw mismatch('a member of what is no set')
  return node
}

function mismatch(what: string): HeapError {
  return new HeapError('ERR_ENGINE', `mirror and engine do not agree: ${what}`)
}

type Content = MapNode['bag'] | Stored[] | string | number | Set<Member>

function contentOf(node: Node): Content {
  switch (node.kind) {
    case KIND.map: return node.bag
    case KIND.list: return node.items
    case KIND.text: return node.text
    case KIND.counter: return node.value
    case KIND.set: return node.members
  }
}

/** Gives a node that did not come back the values it last had. */
function restore(mirror: Mirror, node: Node, content: Content): void {
  mirror.clear(node)
  if (node.kind === KIND.map) node.bag = content as MapNode['bag']
  else if (node.kind === KIND.list) node.items = content as Stored[]
  else if (node.kind === KIND.text) node.text = content as string
  else if (node.kind === KIND.counter) node.value = content as number
  else node.members = content as Set<Member>
  for (const child of children(node)) {
    if (child.places > 0) continue
    child.places = 1
    child.parent = node
  }
}

/** The first difference between a mirror and the engine's dump of the same segment, whose handles are its own; `undefined` if there is none. */
export function compare(mirror: Mirror, dump: Uint8Array, makeRef: MakeRef): string | undefined {
  const engine = new Mirror()
  applyPatches(engine, dump, makeRef)
  if (mirror.root === undefined || engine.root === undefined) return mirror.root === engine.root ? undefined : 'one of them has no first object'
  for (const id of new Set([...mirror.near.keys(), ...engine.near.keys()])) {
    const [ours, theirs] = [mirror.near.get(id), engine.near.get(id)]
    const found = ours === undefined || theirs === undefined ? `#${id}: an object that only one of them has` : compareNodes(ours, theirs, `#${id}`)
    if (found !== undefined) return found
  }
  return compareNodes(mirror.root, engine.root, '')
}

function compareNodes(ours: Node, theirs: Node, path: string): string | undefined {
  if (ours.kind !== theirs.kind) return `${path}: an object of kind ${ours.kind}, the engine has one of kind ${theirs.kind}`
  if (ours.places !== 1) return `${path}: an object that counts ${ours.places} places`
  for (const child of children(ours)) if (child.parent !== ours) return `${path}: it holds object ${child.handle}, which says it is elsewhere`
  if (ours.snap !== undefined && !sameSnapshot(ours.snap, snapshotOf(theirs))) return `${path}: a snapshot from before a change`
  if (ours.kind === KIND.map && theirs.kind === KIND.map) {
    for (const key of new Set([...Object.keys(ours.bag), ...Object.keys(theirs.bag)])) {
      const found = compareValues(ours.bag[key], theirs.bag[key], `${path}.${key}`)
      if (found !== undefined) return found
    }
    return undefined
  }
  if (ours.kind === KIND.list && theirs.kind === KIND.list) {
    for (let i = 0; i < Math.max(ours.items.length, theirs.items.length); i++) {
      const found = compareValues(ours.items[i], theirs.items[i], `${path}[${i}]`)
      if (found !== undefined) return found
    }
    return undefined
  }
  if (ours.kind === KIND.set && theirs.kind === KIND.set) {
    const same = ours.members.size === theirs.members.size && [...ours.members].every(member => theirs.members.has(member))
    return same ? undefined : `${path}: set of ${[...ours.members].join()}, the engine has ${[...theirs.members].join()}`
  }
  const a = contentOf(ours)
  const b = contentOf(theirs)
  return Object.is(a, b) ? undefined : `${path}: ${String(a)}, the engine has ${String(b)}`
}

function compareValues(ours: Stored | undefined, theirs: Stored | undefined, path: string): string | undefined {
  if (isNode(ours) && isNode(theirs)) return compareNodes(ours, theirs, path)
  const same = ours instanceof Date && theirs instanceof Date ? Object.is(ours.getTime(), theirs.getTime())
    : ours instanceof Uint8Array && theirs instanceof Uint8Array ? ours.length === theirs.length && ours.every((byte, i) => byte === theirs[i])
    : Object.is(ours, theirs)
  return same ? undefined : `${path}: ${describe(ours)}, the engine has ${describe(theirs)}`
}

function describe(value: Stored | undefined): string {
  return isNode(value) ? `object ${value.handle}` : typeof value === 'string' ? JSON.stringify(value) : String(value)
}
