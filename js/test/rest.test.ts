// Segments at rest (CORE-PROTOCOL L6): here as bytes, with a mirror or without, and as good as any other for who looks.
import assert from 'node:assert/strict'
import { afterEach, test } from 'node:test'
import { type Heap, type HeapError, type OpenOptions, type Ref } from '../src/index.js'
import { OP } from '../src/edge.js'
import { IDLE_MS } from '../src/idle.js'
import { closeAll, expecting, openOn as opening } from './clean.js'
import { FakeRelay } from './fake-relay.js'
import { FixedWorld, settled } from './fixed.js'
import { Traps } from './traps.js'

type Any = Record<string, any>
const openOn = (relay: FakeRelay, options: OpenOptions<Any> = {}): Promise<Heap<Any>> => opening<Any>(relay, options)

let world: FixedWorld | undefined
let traps: Traps | undefined
afterEach(async () => {
  traps?.end()
  traps = undefined
  world?.end()
  world = undefined
  await closeAll()
})

/** How a segment is here: `live`, `packed` (with its mirror), `bytes` (without), or not at all. */
function how(heap: Heap<Any>, ref: Ref<Any>): string | undefined {
  const found = heap.stats().segments.find(segment => segment.ref === ref.id)
  return found === undefined ? undefined : found.mirror ? found.residence : 'bytes'
}

/** Time in which nothing happens, but that the collector runs. */
async function idle(): Promise<void> {
  for (let i = 0; i < 6; i++) {
    world!.collect()
    world!.pass(IDLE_MS / 2)
    await settled()
  }
}

/** Two heaps on one relay; the second has loaded what the first has written. */
async function two(content: object, options: OpenOptions<Any> = {}): Promise<{ relay: FakeRelay; a: Heap<Any>; b: Heap<Any>; mine: Ref<Any>; ref: Ref<Any> }> {
  const relay = new FakeRelay()
  const [a, b] = [await openOn(relay), await openOn(relay, options)]
  const mine = a.alloc<Any>(content)
  await b.reach(await a.flush())
  const ref = b.ref<Any>(mine.id)
  await ref.load()
  return { relay, a, b, mine, ref }
}

test('L6: what nobody needs for a while is bytes alone, follows what others write, and is read at once', async () => {
  world = new FixedWorld(1)
  const { relay, a, b, mine, ref } = await two({ n: 1, list: [{ x: 1 }] })
  assert.equal(how(b, ref), 'live')
  await idle()
  assert.equal(how(b, ref), 'bytes')
  mine.value['n'] = 2
  mine.value['list'].push({ x: 2 })
  await b.reach(await a.flush())
  assert.equal(how(b, ref), 'bytes', 'nobody has looked')
  const { loads } = b.stats()
  relay.down = true
  relay.cut()
  await settled()
  assert.deepEqual([ref.peek()!['n'], ref.value['list'].length, ref.value['list'][1].x], [2, 2, 2])
  assert.deepEqual([how(b, ref), b.stats().loads, b.status.connection === 'online'], ['live', loads, false])
  relay.down = false
  world.pass(10_000)
  await settled()
  ref.value['n'] = 3
  await a.reach(await b.flush())
  assert.equal(mine.value['n'], 3)
})

test('L6: a document at rest under a mirror that is needed is decoded for what comes to it, and for what is written', async () => {
  world = new FixedWorld(2)
  const { a, b, mine, ref } = await two({ n: 1, deep: { x: 1 } })
  const pinned = b.pin(ref)
  await idle()
  assert.equal(how(b, ref), 'packed')
  assert.deepEqual(ref.peek(), { n: 1, deep: { x: 1 } })
  assert.equal(how(b, ref), 'packed', 'reading needs no document')
  mine.value['n'] = 2
  await b.reach(await a.flush())
  assert.deepEqual([how(b, ref), ref.peek()!['n']], ['live', 2])
  await idle()
  assert.equal(how(b, ref), 'packed')
  ref.value['deep'].x = 5
  await a.reach(await b.flush())
  assert.deepEqual([how(b, ref), mine.value['deep'].x], ['live', 5])
  // When nobody needs it any more it loses its mirror too.
  await idle()
  pinned[Symbol.dispose]()
  await idle()
  assert.equal(how(b, ref), 'bytes')
})

test('L6, S28: who watches an object, or an expression, is told of what comes to it, however long it was idle', async () => {
  world = new FixedWorld(3)
  const { a, b, mine, ref } = await two({ n: 1 })
  const other = a.alloc<Any>({ m: 1 })
  await b.reach(await a.flush())
  const otherRef = b.ref<Any>(other.id)
  await otherRef.load()
  const seen: unknown[] = []
  const selected: unknown[] = []
  b.watch(ref, change => { seen.push(change.patches) })
  const stop = b.watch(() => otherRef.peek()?.['m'], m => { selected.push(m) })
  await idle()
  assert.deepEqual([how(b, ref), how(b, otherRef)], ['packed', 'packed'])
  await b.evict({ toBytes: 0 })
  mine.value['n'] = 2
  other.value['m'] = 2
  await b.reach(await a.flush())
  await settled()
  assert.deepEqual(seen, [[{ op: 'set', path: ['n'], value: 2, before: 1 }]])
  assert.deepEqual(selected, [2])
  // An expression that is not watched any more holds nothing.
  stop[Symbol.dispose]()
  await idle()
  assert.deepEqual([how(b, ref), how(b, otherRef)], ['packed', 'bytes'])
})

test('L6: transactions and run() read and write what is here as bytes', async () => {
  world = new FixedWorld(4)
  const { a, b, mine, ref } = await two({ n: 1 })
  await idle()
  assert.equal(how(b, ref), 'bytes')
  assert.throws(() => b.transact(() => { ref.value['n'] += 1; throw new Error('undo') }), /undo/)
  assert.equal(ref.value['n'], 1)
  await idle()
  assert.equal(how(b, ref), 'bytes')
  b.transact(() => { ref.value['n'] += 1 })
  await a.reach(await b.flush())
  assert.equal(mine.value['n'], 2)
  const part = b.map<number>('m', { partitions: 2 })
  await part.set('k', 1)
  await b.flush()
  await idle()
  assert.deepEqual(b.stats().segments.filter(segment => !segment.mirror).length > 0, true)
  const { loads } = b.stats()
  assert.equal(part.partitionOf('k').loaded, true)
  assert.equal(part.partitionOf('k').get('k'), 1)
  assert.equal(b.stats().loads, loads)
})

test('L6: what is not saved stays decoded', async () => {
  world = new FixedWorld(5)
  const { relay, b, ref } = await two({ n: 1 })
  relay.down = true
  relay.cut()
  ref.value['n'] = 2
  await idle()
  assert.equal(how(b, ref), 'live')
  relay.down = false
  world.pass(30_000)
  await b.flush()
  await idle()
  assert.equal(how(b, ref), 'bytes')
})

test('L6: segments that are bytes go along into another instance, with what came to them', async () => {
  world = new FixedWorld(6)
  traps = new Traps()
  const { a, b, mine, ref } = await two({ n: 1 })
  const pinned = a.alloc<Any>({ p: 1 })
  await b.reach(await a.flush())
  const pinnedRef = b.ref<Any>(pinned.id)
  await pinnedRef.load()
  b.pin(pinnedRef)
  await idle()
  mine.value['n'] = 2
  await b.reach(await a.flush())
  assert.deepEqual([how(b, ref), how(b, pinnedRef)], ['bytes', 'packed'])
  const errors: string[] = []
  b.addEventListener('error', (error: HeapError) => { errors.push(error.code) })
  expecting(b, { rebuilds: 1 })
  traps.plan = ({ op }) => {
    if (op !== OP.stats) return undefined
    traps!.plan = () => undefined
    return 'after'
  }
  b.stats()
  await settled()
  assert.deepEqual(errors, ['ERR_ENGINE'])
  // What has a mirror is decoded in the next one.
  assert.deepEqual([how(b, ref), how(b, pinnedRef)], ['bytes', 'live'])
  assert.deepEqual([ref.peek(), pinnedRef.peek()], [{ n: 2 }, { p: 1 }])
  ref.value['n'] = 3
  world.pass(5000)
  await a.reach(await b.flush())
  assert.equal(mine.value['n'], 3)
})

test('L6, S24: under a budget the least recently used are bytes before any goes, and half of it holds them', async () => {
  world = new FixedWorld(7)
  const relay = new FakeRelay()
  const a = await openOn(relay)
  const refs = Array.from({ length: 20 }, (_, i) => a.alloc({ data: `${i}`.repeat(1000) }))
  const version = await a.flush()
  const b = await openOn(relay, { budget: '100kb' })
  await b.reach(version)
  const evicted: string[] = []
  b.addEventListener('evicted', event => { evicted.push(...event.refs.map(ref => ref.id)) })
  const theirs = refs.map(ref => b.ref<Any>(ref.id))
  const states: string[] = []
  for (const ref of theirs) {
    await ref.load()
    world.collect()
    world.pass(5)
    states.push(theirs.map(each => ({ live: 'L', packed: 'P', bytes: 'b' })[how(b, each) ?? ''] ?? '.').join(''))
  }
  const last = states.at(-1)!
  assert.match(last, /^\.*b+L+$/, states.join('\n'))
  assert.equal(evicted.length, [...last].filter(c => c === '.').length)
  const firstGone = states.findIndex(state => state.startsWith('.'))
  assert.ok(firstGone < 0 || states.slice(0, firstGone).some(state => state.includes('b')), 'packed before gone')
  assert.ok([...last].filter(c => c === 'b').length * 2 >= [...last].filter(c => c === 'L').length, last)
  assert.ok(b.status.residentBytes <= 100 * 1024)
})
