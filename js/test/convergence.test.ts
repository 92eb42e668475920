// Random programs on several replicas over a relay in memory, through the real engine: at the end all hold the same, and
// after every commit every mirror held what its engine holds. One number replays a run: COHEAP_SEED=… COHEAP_RUNS=1.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Counter, Heap, LiveSet, Text } from '../src/index.js'
import { FakeRelay } from './fake-relay.js'

process.env['COHEAP_DEBUG'] = '1'
const { counter, move, open, set, snapshot, text } = await import('../src/index.js')

const RUNS = Number(process.env['COHEAP_RUNS'] ?? 12)
const SEED = Number(process.env['COHEAP_SEED'] ?? 1)
const STEPS = 300

type Any = Record<string, any>

/** A small generator whose whole state is a number. */
function random(seed: number): (below: number) => number {
  let state = seed * 2654435761 + 12345
  return below => {
    state = (Math.imul(state ^ (state >>> 15), 0x2c1b3c6d) + 0x9e3779b9) | 0
    const mixed = Math.imul(state ^ (state >>> 12), 0x297a2d39)
    return ((mixed ^ (mixed >>> 15)) >>> 0) % below
  }
}

const KEYS = ['a', 'b', '10', '9', '__proto__', 'ключ', 'toString', 'c', 'd', 'e', 'f', 'g', 'h', 'i']
const counts: Record<string, number> = {}

function value(pick: (below: number) => number, depth = 0): unknown {
  switch (pick(depth > 2 ? 9 : 14)) {
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
    case 11: return set(['p', 'q'].slice(pick(3)))
    case 12: return Array.from({ length: pick(4) }, () => value(pick, depth + 1))
    default: return Object.fromEntries(Array.from({ length: pick(5) }, () => [KEYS[pick(KEYS.length)]!, value(pick, depth + 1)]))
  }
}

/** One random change somewhere. */
function change(root: Any, pick: (below: number) => number): void {
  let at: unknown = root
  for (let depth = 0; depth < 4; depth++) {
    const inner = (Array.isArray(at) ? [...at] : Object.values(at as Any)).filter(each => typeof each === 'object' && each !== null && !(each instanceof Date) && !(each instanceof Uint8Array))
    if (inner.length === 0 || pick(3) === 0) break
    at = inner[pick(inner.length)]
    if (!Array.isArray(at) && Object.getPrototypeOf(at) !== Object.prototype) break
  }
  const did = (what: string): void => { counts[what] = (counts[what] ?? 0) + 1 }
  if (Array.isArray(at)) {
    const list = at as unknown[]
    const length = list.length
    switch ([0, 1, 0, 1, 2, 3, 4, 5, 6, 3, 4, 6][pick(length === 0 ? 4 : 12)]) {
      case 0: did('push'); list.push(value(pick), value(pick), value(pick, 3)); break
      case 1: did('insert'); list.splice(pick(length + 1), 0, value(pick)); break
      case 2: did('remove'); list.splice(pick(length), 1 + pick(2)); break
      case 3: did('put'); list[pick(length)] = value(pick); break
      case 4: did('move'); move(list, pick(length), pick(length)); break
      case 5: did('shift'); list.shift(); break
      default: did('replace'); list.splice(pick(length), 1, value(pick)); break
    }
  } else if (typeof (at as Text).splice === 'function') {
    const t = at as Text
    const start = pick(t.length + 1)
    if (pick(3) === 0) { did('update'); t.update(['hello world', 'help', 'a😀c😀', ''][pick(4)]!) }
    else { did('text'); t.splice(start, pick(t.length - start + 1), ['', 'xy', '😀'][pick(3)]!) }
  } else if (typeof (at as LiveSet<string>).has === 'function') {
    const s = at as LiveSet<string>
    if (pick(2) === 0) { did('set add'); s.add(['p', 'q', 'r', 's'][pick(4)]!) } else { did('set delete'); s.delete(['p', 'q', 'r'][pick(3)]!) }
  } else if (typeof (at as Counter).add === 'function') {
    did('count')
    ;(at as Counter).add(pick(9) - 4)
  } else {
    const map = at as Any
    const key = KEYS[pick(KEYS.length)]!
    if (pick(8) === 0) { did('delete key'); delete map[key] } else {
      did('set key')
      map[typeof map[key] === 'object' && pick(4) !== 0 ? `k${pick(40)}` : key] = value(pick)
    }
  }
}

async function run(seed: number): Promise<number> {
  const pick = random(seed)
  const relay = new FakeRelay()
  const heaps: Heap<Any>[] = []
  const errors: unknown[] = []
  for (let i = 0; i < 2 + pick(3); i++) {
    const heap = await open<Any>('ws://test/heap/h', { webSocket: relay.socket })
    // ERR_CONFLICT: kinds that differed under one key at once (S2).
    heap.addEventListener('error', error => { if (error.code !== 'ERR_CONFLICT') errors.push(error) })
    heaps.push(heap)
  }
  /** Objects that nothing holds, in the segment of the root. */
  const near: string[] = []
  for (let step = 0; step < STEPS; step++) {
    const heap = heaps[pick(heaps.length)]!
    const kind = pick(20)
    if (kind < 12) change(heap.root, pick)
    else if (kind === 12) near.push(heap.alloc({ made: step, in: value(pick) }, { near: heap.refOf(heap.root) }).id)
    else if (kind === 13) {
      const seen = near.map(id => seenNear(heap, id)).filter(live => live !== undefined)
      change(seen[pick(Math.max(1, seen.length))] ?? heap.root, pick)
    } else if (kind < 16) heap.transact(() => { for (let i = 0; i < 4; i++) change(heap.root, pick) })
    else if (kind === 16) {
      const before = JSON.stringify(printable(snapshot(heap.root)))
      assert.throws(() => heap.transact(() => { for (let i = 0; i < 4; i++) change(heap.root, pick); throw new Error('undo') }), /undo/)
      assert.equal(JSON.stringify(printable(snapshot(heap.root))), before)
    } else if (kind === 17) relay.cut()
    else if (kind === 18) await heap.sync()
    else await new Promise(resolve => setTimeout(resolve, pick(3)))
    if (pick(3) === 0) await Promise.resolve()
  }
  for (const heap of heaps) await heap.flush({ timeoutMs: 10_000 })
  for (const heap of heaps) await heap.sync({ timeoutMs: 10_000 })
  assert.deepEqual(errors, [])
  const images = heaps.map(heap => printable([snapshot(heap.root), ...near.map(id => snapshot(heap.ref<Any>(id).value))]))
  for (const image of images) assert.deepEqual(image, images[0])
  for (const heap of heaps) {
    const stats = heap.stats()
    assert.equal(stats.refused + stats.quarantined + stats.rebuilds, 0)
    await heap.close()
  }
  return JSON.stringify(images[0]).length
}

/** An object that nothing holds, if this replica has heard of it. */
function seenNear(heap: Heap<Any>, id: string): Any | undefined {
  try {
    return heap.ref<Any>(id).value
  } catch (error) {
    assert.equal((error as { code?: string }).code, 'ERR_DELETED')
    return undefined
  }
}

/** A snapshot with what JSON would lose spelled out. */
function printable(value: unknown): unknown {
  if (typeof value === 'bigint') return `${value}n`
  if (typeof value === 'number') return Object.is(value, -0) ? '-0' : Number.isFinite(value) ? value : String(value)
  if (value instanceof Date) return `Date ${value.getTime()}`
  if (value instanceof Uint8Array) return `bytes ${[...value].join()}`
  if (Array.isArray(value)) return value.map(printable)
  if (typeof value === 'object' && value !== null) return Object.entries(value).map(([key, each]) => [key, printable(each)])
  return value
}

test('P1: replicas that saw the same hold the same, whatever they did', async () => {
  const sizes: number[] = []
  for (let i = 0; i < RUNS; i++) {
    try {
      sizes.push(await run(SEED + i))
    } catch (error) {
      throw new Error(`seed ${SEED + i}: ${(error as Error).message}`, { cause: error })
    }
  }
  const total = Object.values(counts).reduce((sum, n) => sum + n, 0)
  if (RUNS >= 12) for (const [what, n] of Object.entries(counts)) assert.ok(n / total >= 0.002, `${what}: only ${n} of ${total}`)
  sizes.sort((a, b) => a - b)
  assert.ok(sizes[sizes.length >> 1]! > 200, `final documents are trivial: ${sizes.join()}`)
})
