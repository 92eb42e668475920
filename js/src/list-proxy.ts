/**
 * Live lists: proxies that behave as arrays. `Array.isArray` is true, and what an array's methods read they read from the
 * mirror; the methods that change an array are ours, because a shared list changes by elements and not by slots.
 *
 * Not supported, each with a TypeError that says what to do instead: `sort`, `reverse`, `copyWithin`, holes, growing `length`.
 */

import { snapshotOf } from './snapshot.js'
import { liveOf, present } from './proxy.js'
import { NODE, nodeOf } from './symbols.js'
import { insertItems, moveItem, putItem, removeItems } from './write.js'
import type { ListNode, Stored } from './mirror.js'

const INSPECT = Symbol.for('nodejs.util.inspect.custom')

/** The live object of a list. */
export function listProxy(node: ListNode): object {
  const target = new ListTarget()
  Object.defineProperty(target, NODE, { value: node, configurable: true })
  return new Proxy<object>(target, listHandler)
}

/** Moves an element of a live list to the index it has afterwards. The element keeps its identity; concurrent edits in it stay. */
export function move(list: readonly unknown[], from: number, to: number): void {
  const node = nodeOf(list)
  if (node === undefined || !Array.isArray(list)) throw new TypeError('move(list, from, to) takes a live list')
  moveItem(node as ListNode, from, to)
}

class ListTarget extends Array<unknown> {
  [INSPECT](): unknown {
    return snapshotOf(nodeOf(this)!)
  }
}

function nodeIn(target: object): ListNode {
  return (target as { [NODE]: ListNode })[NODE]
}

/** The index a key means, or −1. */
function indexOfKey(key: string | symbol): number {
  if (typeof key !== 'string') return -1
  const code = key.charCodeAt(0)
  if (!(code >= 48 && code <= 57)) return -1
  const n = Number(key)
  return Number.isInteger(n) && n < 4_294_967_295 && String(n) === key ? n : -1
}

const listHandler: ProxyHandler<object> = {
  get(target, key, receiver) {
    const node = nodeIn(target)
    const index = indexOfKey(key)
    if (index >= 0) {
      const value = node.items[index]
      return typeof value === 'object' ? present(value) : value
    }
    if (key === 'length') return node.items.length
    if (key === NODE) return node
    if (Object.hasOwn(METHODS, key)) return (METHODS as unknown as Record<string | symbol, unknown>)[key]
    return Reflect.get(Array.prototype, key, receiver) as unknown
  },
  set(target, key, value, receiver) {
    const node = nodeIn(target)
    if (receiver !== liveOf(node)) {
      return Reflect.defineProperty(receiver as object, key, { value, writable: true, enumerable: true, configurable: true })
    }
    const index = indexOfKey(key)
    if (index >= 0) putItem(node, index, value)
    else if (key === 'length') truncate(node, value)
    else throw new TypeError(`a live list has indexes only; ${String(key)} belongs into a map`)
    return true
  },
  has(target, key) {
    const index = indexOfKey(key)
    if (index >= 0) return index < nodeIn(target).items.length
    return key === 'length' || Reflect.has(Array.prototype, key)
  },
  deleteProperty(_target, key) {
    if (indexOfKey(key) < 0) return true
    throw new TypeError('a live list has no holes: splice(index, 1) takes an element out')
  },
  ownKeys(target) {
    return [...nodeIn(target).items.keys()].map(String).concat('length')
  },
  getOwnPropertyDescriptor(target, key) {
    const { items } = nodeIn(target)
    if (key === 'length') return { value: items.length, writable: true, enumerable: false, configurable: false }
    const index = indexOfKey(key)
    if (index < 0 || index >= items.length) return undefined
    return { value: present(items[index]!), writable: true, enumerable: true, configurable: true }
  },
  defineProperty() {
    throw new TypeError('a live list takes plain assignments only')
  },
  getPrototypeOf() {
    return Array.prototype
  },
  setPrototypeOf() {
    throw new TypeError('a live list has no prototype to change')
  },
  preventExtensions() {
    throw new TypeError('a live list cannot be frozen or sealed; snapshot(it) gives a frozen copy')
  },
}

function truncate(node: ListNode, value: unknown): void {
  const length = Number(value)
  if (!(Number.isInteger(length) && length >= 0)) throw new RangeError('Invalid array length')
  if (length > node.items.length) throw new TypeError(`the list has ${node.items.length} elements and no holes: push() what it should hold`)
  removeItems(node, length, node.items.length - length)
}

/** The node of the list a method was called on. */
function listOf(list: unknown): ListNode {
  return nodeOf(list) as ListNode
}

/** An index argument as arrays read it: negative counts from the end. */
function relative(value: unknown, length: number, absent: number): number {
  if (value === undefined) return absent
  const n = Math.trunc(Number(value)) || 0
  return n < 0 ? Math.max(0, length + n) : Math.min(n, length)
}

function sameAs(value: unknown): (item: Stored) => boolean {
  const node = nodeOf(value)
  return node === undefined ? item => item === value : item => item === node
}

const METHODS = {
  push(this: unknown, ...values: unknown[]): number {
    const node = listOf(this)
    insertItems(node, node.items.length, values)
    return node.items.length
  },
  pop(this: unknown): unknown {
    const node = listOf(this)
    return node.items.length === 0 ? undefined : takeOut(node, node.items.length - 1, 1)[0]
  },
  shift(this: unknown): unknown {
    const node = listOf(this)
    return node.items.length === 0 ? undefined : takeOut(node, 0, 1)[0]
  },
  unshift(this: unknown, ...values: unknown[]): number {
    const node = listOf(this)
    insertItems(node, 0, values)
    return node.items.length
  },
  splice(this: unknown, ...args: unknown[]): unknown[] {
    const node = listOf(this)
    const length = node.items.length
    if (args.length === 0) return []
    const start = relative(args[0], length, 0)
    const asked = args.length === 1 ? length - start : Math.trunc(Number(args[1])) || 0
    const count = Math.min(Math.max(asked, 0), length - start)
    insertItems(node, start + count, args.slice(2))
    return takeOut(node, start, count)
  },
  fill(this: unknown, value: unknown, start?: number, end?: number): unknown {
    const node = listOf(this)
    const length = node.items.length
    for (let i = relative(start, length, 0); i < relative(end, length, length); i++) putItem(node, i, value)
    return this
  },
  indexOf(this: unknown, value: unknown, from?: number): number {
    const { items } = listOf(this)
    const same = sameAs(value)
    for (let i = relative(from, items.length, 0); i < items.length; i++) if (same(items[i]!)) return i
    return -1
  },
  lastIndexOf(this: unknown, value: unknown, ...from: [number?]): number {
    const { items } = listOf(this)
    const same = sameAs(value)
    const start = from.length === 0 ? items.length - 1 : Number(from[0]) < 0 ? items.length + Math.trunc(Number(from[0])) : Math.min(Math.trunc(Number(from[0])) || 0, items.length - 1)
    for (let i = start; i >= 0; i--) if (same(items[i]!)) return i
    return -1
  },
  includes(this: unknown, value: unknown, from?: number): boolean {
    if (!Number.isNaN(value)) return METHODS.indexOf.call(this, value, from) >= 0
    const { items } = listOf(this)
    return items.slice(relative(from, items.length, 0)).some(item => Number.isNaN(item))
  },
  values(this: unknown): IterableIterator<unknown> {
    return valuesOf(listOf(this))
  },
  [Symbol.iterator](this: unknown): IterableIterator<unknown> {
    return valuesOf(listOf(this))
  },
  sort(): never {
    throw new TypeError('a live list cannot be sorted in place: sort a copy (list.toSorted(), or snapshot(list)) for showing, or move(list, from, to) single elements')
  },
  reverse(): never {
    throw new TypeError('a live list cannot be reversed in place: reverse a copy (snapshot(list)) for showing, or move(list, from, to) single elements')
  },
  copyWithin(): never {
    throw new TypeError('copyWithin is not supported: an object has one place; use move(list, from, to), or splice in a snapshot')
  },
}

function takeOut(node: ListNode, index: number, count: number): unknown[] {
  return removeItems(node, index, count).map(present)
}

function* valuesOf(node: ListNode): IterableIterator<unknown> {
  for (let i = 0; i < node.items.length; i++) yield present(node.items[i]!)
}
