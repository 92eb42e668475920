// Random programs over live objects: what a step may be, how often, and what it does to the heap of one replica.
import assert from 'node:assert/strict'
import { counter, HeapError, move, set, snapshot, text, type Counter, type Heap, type LiveSet, type Ref, type Text } from '../src/index.js'
import type { Pick } from './fixed.js'

export type Any = Record<string, any>

/** What a step is, and how often beside the others. Deliveries are what makes the rest concurrent, or not. */
export const WEIGHTS = {
  'set': 5, 'ensure': 3, 'delete': 3, 'push': 4, 'insert': 4, 'remove': 3, 'put': 4, 'move': 4, 'shift': 3, 'replace': 3,
  'text splice': 4, 'text update': 4, 'counter add': 4, 'set add': 4, 'set delete': 4,
  'alloc': 4, 'reference': 3, 'load': 6, 'run': 3, 'evict': 5, 'pack': 5, 'map set': 3, 'map add': 3, 'map delete': 3,
  'transact': 4, 'transact undone': 4, 'flush': 3, 'sync': 3, 'disconnect': 4,
  'deliver up': 20, 'deliver down': 28,
} as const
export type Kind = keyof typeof WEIGHTS
export const KINDS = Object.keys(WEIGHTS) as Kind[]

/** How a segment is made; each way is taken as often. Another engine is another line here. */
const ALLOCS: ((heap: Heap<Any>, value: object) => Ref<Any>)[] = [
  (heap, value) => heap.alloc(value),
  (heap, value) => heap.alloc(value, { history: true }),
  (heap, value) => heap.alloc(value, { near: heap.refOf(heap.root) }),
  (heap, value) => heap.alloc(value, { near: reachable(heap).refs.find(ref => seen(ref) !== undefined) }),
]

/** A kind of step, by weight. */
export function drawKind(pick: Pick): Kind {
  let at = pick(KINDS.reduce((sum, kind) => sum + WEIGHTS[kind], 0))
  return KINDS.find(kind => (at -= WEIGHTS[kind]) < 0)!
}

const KEYS = ['a', 'b', '10', '9', '__proto__', 'ключ', 'toString', '', 'c', 'd', 'e', '~1~a']
const MAP_KEYS = ['x', 'y', 'z', '😀', 'w', 'v']
const TEXTS = ['hello world', 'help', 'a😀c😀', '', 'b']

/** A value to write. */
export function value(pick: Pick, depth = 0): unknown {
  switch (pick(depth > 2 ? 9 : 16)) {
    case 0: return null
    case 1: return pick(2) === 0
    case 2: return pick(1000) - 500
    case 3: return [0.5, -0, NaN, Infinity, 2 ** 53, 1e300][pick(6)]
    case 4: return ['', 'x', '😀', 'ä'.repeat(20), '\u0000'][pick(5)]
    case 5: return BigInt(pick(1000)) * 1_000_000_007n
    case 6: return new Date(pick(1e9))
    case 7: return Uint8Array.from({ length: pick(5) }, () => pick(256))
    case 8: return pick(100)
    case 9: return counter(pick(5))
    case 10: return text(['', 'abc', 'a😀b'][pick(3)])
    case 11: return set(['p', 'q', 'r'].slice(pick(3)))
    case 12: case 13: return Array.from({ length: pick(4) }, () => value(pick, depth + 1))
    default: return Object.fromEntries(Array.from({ length: pick(5) }, () => [KEYS[pick(KEYS.length)]!, value(pick, depth + 1)]))
  }
}

const isRef = (it: unknown): it is Ref<Any> => typeof it === 'object' && it !== null && 'peek' in it && 'heap' in it
const isList = (it: unknown): it is unknown[] => Array.isArray(it)
const isText = (it: unknown): it is Text => typeof (it as Text).splice === 'function' && !isList(it)
const isSet = (it: unknown): it is LiveSet<string> => typeof (it as LiveSet<string>).has === 'function' && 'size' in (it as object)
const isCounter = (it: unknown): it is Counter => typeof (it as Counter).add === 'function' && typeof (it as Counter).value === 'number'
const isMap = (it: unknown): it is Any => Object.getPrototypeOf(it) === Object.prototype && !isList(it)

/** All live objects that can be reached without loading, and all refs among them. */
export function reachable(heap: Heap<Any>): { objects: object[]; refs: Ref<Any>[] } {
  const objects = new Set<object>()
  const refs = new Set<Ref<Any>>()
  const walk = (it: unknown): void => {
    if (typeof it !== 'object' || it === null || it instanceof Date || it instanceof Uint8Array || objects.has(it)) return
    if (!isRef(it)) {
      objects.add(it)
      if (isList(it)) for (const each of it) walk(each)
      else if (isMap(it)) for (const key of Object.keys(it)) walk(it[key])
    } else if (!refs.has(it)) {
      refs.add(it)
      walk(seen(it))
    }
  }
  walk(heap.root)
  return { objects: [...objects], refs: [...refs] }
}

/** What a ref points to; `undefined`: it is not loaded, or was deleted. */
export function seen(ref: Ref<Any>): Any | undefined {
  try {
    return ref.peek()
  } catch (error) {
    assert.equal((error as HeapError).code, 'ERR_DELETED')
    return undefined
  }
}

/** A name for an object; `undefined`: the engine has not been told of it yet, because its commit waits for the full module. */
function nameOf(heap: Heap<Any>, live: object): Ref<object> | undefined {
  try {
    return heap.refOf(live)
  } catch (error) {
    assert.equal((error as HeapError).code, 'ERR_ENGINE')
    assert.equal((error as HeapError).retryable, true)
    return undefined
  }
}

/** What a step did: the kind that it came to, and what is still under way. */
export interface Did { kind: Kind; pending?: Promise<unknown> }

/** One step of one replica that stays within it. What cannot be done to what is there makes something that it can be done to. */
export function act(kind: Kind, heap: Heap<Any>, pick: Pick): Did {
  const { objects, refs } = reachable(heap)
  const one = <T>(of: (it: unknown) => it is T): T | undefined => {
    const all = objects.filter(of) as T[]
    return all[pick(Math.max(1, all.length))]
  }
  const key = KEYS[pick(KEYS.length)]!
  /** Sets a key of some map, of one of the newest places as often as of the oldest. */
  const make = (made: unknown): Did => {
    const map = one(isMap)!
    map[map === heap.root || typeof map[key] === 'object' ? `k${pick(12)}` : key] = made
    return { kind: 'set' }
  }
  switch (kind) {
    case 'set': return make(value(pick))
    case 'ensure': {
      const map = one(isMap)!
      const place = `e${pick(4)}`
      if (map[place] === undefined) map[place] = [{}, [], counter(), text()][pick(4)]
      if (isMap(map[place])) map[place][key] = pick(100)
      return { kind }
    }
    case 'delete': {
      const map = (objects.filter(isMap)).filter(map => map !== heap.root && Object.keys(map).length > 0)
      if (map.length === 0) return make({ a: 1 })
      const from = map[pick(map.length)]!
      const keys = Object.keys(from)
      delete from[keys[pick(keys.length)]!]
      return { kind }
    }
    case 'push': case 'insert': case 'remove': case 'put': case 'move': case 'shift': case 'replace': return toList(kind, one(isList), make, pick)
    case 'text splice': case 'text update': {
      const t = one(isText)
      if (t === undefined) return make(text('text'))
      if (kind === 'text update') t.update(TEXTS[pick(TEXTS.length)]! + pick(9))
      else {
        const start = pick(t.length + 1)
        t.splice(start, pick(Math.min(4, t.length - start + 1)), ['1', 'xy', '😀'][pick(3)]!)
      }
      return { kind }
    }
    case 'counter add': {
      const c = one(isCounter)
      if (c === undefined) return make(counter())
      c.add((pick(9) - 4) || 1)
      return { kind }
    }
    case 'set add': case 'set delete': {
      const s = one(isSet)
      if (s === undefined) return make(set(['p', 'q', 'r']))
      const members = [...s]
      if (kind === 'set delete' && members.length > 0) return s.delete(members[pick(members.length)]!), { kind }
      s.add(`m${pick(8)}`)
      return { kind: 'set add' }
    }
    case 'alloc': {
      const content = [{ n: 1, list: [value(pick)], more: value(pick) }, [1, value(pick), { x: value(pick) }]][pick(2)]!
      heap.transact(() => {
        const ref = ALLOCS[pick(ALLOCS.length)]!(heap, content)
        const list = heap.root['refs'] as Ref<Any>[]
        if (list.length > 6) list.shift()
        list.push(ref)
      })
      return { kind }
    }
    case 'reference': {
      const inner = objects.filter(it => it !== heap.root)
      if (inner.length === 0) return make({})
      const name = nameOf(heap, inner[pick(inner.length)]!)
      return name === undefined ? make({}) : (make(name), { kind })
    }
    case 'load': {
      const away = refs.filter(ref => !ref.id.includes('#') && ref.peek() === undefined)
      if (away.length === 0) return act('alloc', heap, pick)
      return { kind, pending: away[pick(away.length)]!.load() }
    }
    case 'run': {
      const all = refs.filter(ref => !ref.id.includes('#'))
      if (all.length === 0) return act('alloc', heap, pick)
      const ref = all[pick(all.length)]!
      const n = pick(100)
      return { kind, pending: heap.run(() => {
        if (isList(ref.value)) ref.value.push(n)
        else ref.value['run'] = n
      }) }
    }
    case 'evict': return { kind, pending: heap.evict({ toBytes: 0 }) }
    // A little less than what is here: what was used least recently is packed.
    case 'pack': return { kind, pending: heap.evict({ toBytes: heap.status.residentBytes - 1000 }) }
    case 'map set': return { kind, pending: heap.map<unknown>('m', { partitions: 3 }).set(MAP_KEYS[pick(MAP_KEYS.length)]!, value(pick, 1)) }
    case 'map add': return { kind, pending: heap.map<number>('scores', { partitions: 3 }).add(MAP_KEYS[pick(MAP_KEYS.length)]!, 1 + pick(5)) }
    case 'map delete': return { kind, pending: heap.map<unknown>('m', { partitions: 3 }).delete(MAP_KEYS[pick(MAP_KEYS.length)]!) }
    case 'transact': {
      heap.transact(() => several(heap, pick), { label: `step ${pick(100)}` })
      return { kind }
    }
    case 'transact undone': {
      const before = printable(reachable(heap).objects.map(it => snapshot(it)))
      assert.throws(() => heap.transact(() => { several(heap, pick); throw new Error('undone') }), /undone/)
      assert.deepEqual(printable(reachable(heap).objects.map(it => snapshot(it))), before)
      return { kind }
    }
    case 'flush': return { kind, pending: heap.flush() }
    case 'sync': return { kind, pending: heap.sync() }
    default: throw new Error(`${kind} is no step within a replica`)
  }
}

const WITHIN: Kind[] = ['set', 'ensure', 'delete', 'push', 'insert', 'remove', 'put', 'move', 'replace', 'text splice', 'text update', 'counter add', 'set add', 'set delete', 'alloc']

/** The steps of one transaction, in whichever segments they fall. */
function several(heap: Heap<Any>, pick: Pick): void {
  for (let i = 0; i < 4; i++) act(WITHIN[pick(WITHIN.length)]!, heap, pick)
}

function toList(kind: Kind, list: unknown[] | undefined, make: (made: unknown) => Did, pick: Pick): Did {
  if (list === undefined) return make([1, 2, {}])
  const { length } = list
  if (kind === 'push' || length === 0) return list.push(value(pick), value(pick)), { kind: 'push' }
  const at = pick(length)
  switch (kind) {
    case 'insert': list.splice(pick(length + 1), 0, value(pick)); break
    case 'remove': list.splice(at, 1 + pick(2)); break
    case 'put': list[at] = value(pick); break
    case 'move': move(list, at, pick(length)); break
    case 'shift': list.shift(); break
    default: list.splice(at, 1, value(pick), pick(10))
  }
  return { kind }
}

/** A snapshot with what JSON would lose spelled out. */
export function printable(it: unknown): unknown {
  if (typeof it === 'bigint') return `${it}n`
  if (typeof it === 'number') return Object.is(it, -0) ? '-0' : Number.isFinite(it) ? it : String(it)
  if (it instanceof Date) return `Date ${it.getTime()}`
  if (it instanceof Uint8Array) return `bytes ${[...it].join()}`
  if (isRef(it)) return it.id
  if (Array.isArray(it)) return it.map(printable)
  if (typeof it === 'object' && it !== null) return Object.entries(it).map(([key, each]) => [key, printable(each)])
  return it
}

/** How many scalars, texts, counters and members a snapshot holds. */
export function values(it: unknown): number {
  if (Array.isArray(it)) return it.reduce((sum: number, each) => sum + values(each), 0)
  if (typeof it !== 'object' || it === null || it instanceof Date || it instanceof Uint8Array || isRef(it)) return 1
  return Object.values(it).reduce((sum: number, each) => sum + values(each), 0)
}

/** Passes over what a wait may end with when its connection was cut; anything else is wrong. */
export function isLoss(error: unknown): boolean {
  return error instanceof HeapError && error.code === 'ERR_OFFLINE'
}
