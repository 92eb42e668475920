/**
 * Snapshots: frozen plain copies whose unchanged parts keep their identity.
 *
 * A node keeps its snapshot until something in it changes (`touch` in `mirror.ts` drops it from there up to the root), so
 * taking one again costs nothing where nothing happened, and `===` on two snapshots tells whether anything did. Maps come
 * in the order of S6, counters as numbers, texts as strings, sets as sorted arrays. Dates and bytes cannot be frozen: they
 * are copies of their own.
 */

import { KIND } from './edge.js'
import { isNode, snapshots, sortedKeys, sortedMembers, type Node, type Stored } from './mirror.js'
import { nodeOf, draftOf } from './symbols.js'
import type { Snapshot } from './types.js'

snapshots.of = snapshotOfStored

/** A frozen plain copy of a live object; unchanged parts keep their identity from one call to the next. */
export function snapshot<T extends object>(live: T): Snapshot<T> {
  const node = nodeOf(live)
  if (node !== undefined) return snapshotOf(node) as Snapshot<T>
  const draft = draftOf(live)
  if (draft !== undefined) return draft.plain() as Snapshot<T>
  throw new TypeError('snapshot() takes a live object of a heap')
}

/** The snapshot of a node. */
export function snapshotOf(node: Node): unknown {
  if (node.snap !== undefined) return node.snap
  const snap = build(node)
  node.snap = snap
  return snap
}

/** The snapshot of whatever the mirror holds. */
export function snapshotOfStored(value: Stored): unknown {
  if (typeof value !== 'object' || value === null) return value
  if (isNode(value)) return snapshotOf(value)
  return copyOut(value)
}

/** A value as it may leave the mirror, containers excepted. */
export function copyOut(value: Exclude<Stored, Node>): unknown {
  if (value instanceof Date) return new Date(value.getTime())
  if (value instanceof Uint8Array) return copyBytes(value)
  return value
}

function build(node: Node): unknown {
  if (node.kind === KIND.counter) return node.value
  if (node.kind === KIND.text) return node.text
  if (node.kind === KIND.set) return Object.freeze(sortedMembers(node))
  if (node.kind === KIND.list) return Object.freeze(node.items.map(snapshotOfStored))
  const out: Record<string, unknown> = {}
  for (const key of sortedKeys(node)) define(out, key, snapshotOfStored(node.bag[key]!))
  return Object.freeze(out)
}

/** Whether two snapshots hold the same, whether or not they share anything. */
export function sameSnapshot(a: unknown, b: unknown): boolean {
  if (Object.is(a, b)) return true
  if (typeof a !== 'object' || typeof b !== 'object' || a === null || b === null) return false
  if (a instanceof Date) return b instanceof Date && Object.is(a.getTime(), b.getTime())
  if (a instanceof Uint8Array) return b instanceof Uint8Array && a.length === b.length && a.every((byte, i) => byte === b[i])
  if (Array.isArray(a)) return Array.isArray(b) && a.length === b.length && a.every((each, i) => sameSnapshot(each, b[i]))
  if (Object.getPrototypeOf(a) !== Object.prototype || Object.getPrototypeOf(b) !== Object.prototype) return false
  const keys = Object.keys(a)
  return keys.length === Object.keys(b).length
    && keys.every(key => Object.hasOwn(b, key) && sameSnapshot((a as Record<string, unknown>)[key], (b as Record<string, unknown>)[key]))
}

/** Sets an own key, `__proto__` too. */
export function define(target: object, key: string, value: unknown): void {
  if (key === '__proto__') Object.defineProperty(target, key, { value, writable: true, enumerable: true, configurable: true })
  else (target as Record<string, unknown>)[key] = value
}

/** A copy of bytes that prints as base64 in JSON (S9). */
function copyBytes(bytes: Uint8Array): Uint8Array {
  return Object.defineProperty(new Uint8Array(bytes), 'toJSON', { value: bytesToJson, enumerable: false, configurable: true, writable: true })
}

function bytesToJson(this: Uint8Array): string {
  let binary = ''
  for (let i = 0; i < this.length; i += 8192) binary += String.fromCharCode(...this.subarray(i, i + 8192))
  return btoa(binary)
}
