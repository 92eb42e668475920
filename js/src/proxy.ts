/**
 * Live objects: what a program holds for a node of the mirror. One object per node while it lives.
 *
 * Maps are proxies that behave as plain objects, lists proxies that behave as arrays (`list-proxy.ts`), the others objects
 * with methods (`values.ts`). Reads come from the mirror and nowhere else; writes go through `write.ts`. Handlers are shared:
 * a proxy costs its target and nothing per key.
 *
 * Every string is an ordinary key, `__proto__`, `constructor` and `toString` included: absent, it reads `undefined` (S6).
 */

import { KIND, wellFormed } from './edge.js'
import { isNode, sortedKeys, type MapNode, type Node, type Stored } from './mirror.js'
import { listProxy } from './list-proxy.js'
import { copyOut, snapshotOf } from './snapshot.js'
import { NODE, nodeOf } from './symbols.js'
import { CounterObject, SetObject, TextObject } from './values.js'
import { deleteKey, setKey } from './write.js'

const INSPECT = Symbol.for('nodejs.util.inspect.custom')

/** A stored value as a program sees it. */
export function present(value: Stored): unknown {
  if (typeof value !== 'object' || value === null) return value
  return isNode(value) ? liveOf(value) : copyOut(value)
}

/** The live object of a node. */
export function liveOf(node: Node): object {
  if (node.recent !== undefined) return node.recent
  let live = node.live?.deref()
  if (live === undefined) {
    live = make(node)
    node.live = new WeakRef(live)
    node.mirror.handedOut.push(node)
  }
  if (recent.length === 0) queueMicrotask(forgetRecent)
  node.recent = live
  recent.push(node)
  return live
}

const recent: Node[] = []

/** The objects that were looked at in this turn; a WeakRef keeps what it showed for as long. */
function forgetRecent(): void {
  for (const node of recent) node.recent = undefined
  recent.length = 0
}

function make(node: Node): object {
  switch (node.kind) {
    case KIND.map: return new Proxy<object>(new MapTarget(node), mapHandler)
    case KIND.list: return listProxy(node)
    case KIND.text: return new TextObject(node)
    case KIND.counter: return new CounterObject(node)
    case KIND.set: return new SetObject(node)
  }
}

/**
 * All that `structuredClone` and `postMessage` say of a proxy is the name of its target's class, if the source has it: so
 * that is the hint.
 */
const { 'live object: post snapshot(it) instead': MapTarget } = {
  'live object: post snapshot(it) instead': class {
    constructor(readonly node: MapNode) {}

    [INSPECT](): unknown {
      return snapshotOf(nodeOf(this)!)
    }
  },
}
type MapTarget = InstanceType<typeof MapTarget>

/** What a map still answers to like any plain object, unless it has such a key. */
const INHERITED: Readonly<Record<string, unknown>> = Object.assign(Object.create(null) as Record<string, unknown>, {
  hasOwnProperty: Object.prototype.hasOwnProperty,
  isPrototypeOf: Object.prototype.isPrototypeOf,
  propertyIsEnumerable: Object.prototype.propertyIsEnumerable,
  toLocaleString: () => '[object Object]',
  valueOf: Object.prototype.valueOf,
})

function toPrimitive(hint: string): string | number {
  return hint === 'number' ? NaN : '[object Object]'
}

function stored(target: object, key: string): Stored | undefined {
  const bag = (target as MapTarget).node.bag
  return bag[key] ?? (bag[key] === null ? null : bag[wellFormed(key)])
}

const mapHandler: ProxyHandler<object> = {
  get(target, key) {
    if (typeof key === 'symbol') return key === NODE ? (target as MapTarget).node : key === Symbol.toPrimitive ? toPrimitive : undefined
    const value = (target as MapTarget).node.bag[key]
    if (value !== undefined) return typeof value === 'object' ? present(value) : value
    const other = stored(target, key)
    return other !== undefined ? present(other) : INHERITED[key]
  },
  set(target, key, value, receiver) {
    if (receiver !== liveOf((target as MapTarget).node)) {
      return Reflect.defineProperty(receiver as object, key, { value, writable: true, enumerable: true, configurable: true })
    }
    if (typeof key === 'symbol') throw new TypeError('a live map has strings as keys, not symbols')
    setKey((target as MapTarget).node, key, value)
    return true
  },
  has(target, key) {
    return typeof key === 'string' && stored(target, key) !== undefined
  },
  deleteProperty(target, key) {
    if (typeof key === 'string') deleteKey((target as MapTarget).node, key)
    return true
  },
  ownKeys(target) {
    return sortedKeys((target as MapTarget).node)
  },
  getOwnPropertyDescriptor(target, key) {
    const value = typeof key === 'string' ? stored(target, key) : undefined
    return value === undefined ? undefined : { value: present(value), writable: true, enumerable: true, configurable: true }
  },
  defineProperty() {
    throw new TypeError('a live map takes plain assignments only; accessors and attributes have no meaning in a heap')
  },
  getPrototypeOf() {
    return Object.prototype
  },
  setPrototypeOf() {
    throw new TypeError('a live map has no prototype to change')
  },
  preventExtensions() {
    throw new TypeError('a live map cannot be frozen or sealed; snapshot(it) gives a frozen copy')
  },
}
