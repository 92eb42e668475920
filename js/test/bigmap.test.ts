// Big maps, partitions, residence: over a relay in memory.
import assert from 'node:assert/strict'
import { afterEach, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { createBudget, HeapError, open, snapshot, type Heap, type MapChange, type OpenOptions, type Ref } from '../src/index.js'
import { closeAll, closeClean, expecting, keep, openOn as opening } from './clean.js'
import { FakeRelay } from './fake-relay.js'
import { FixedWorld } from './fixed.js'

type Any = Record<string, any>
afterEach(closeAll)
const openOn = (relay: FakeRelay, options: OpenOptions<Any> = {}): Promise<Heap<Any>> => opening<Any>(relay, options)

interface Item { name: string; price: number; tags?: string[] }

test('a big map keeps what is put into it, wherever it is read', async () => {
  const relay = new FakeRelay()
  const a = await openOn(relay)
  const items = a.map<Item>('items', { partitions: 8 })
  await items.set('apple', { name: 'Apple', price: 1 })
  assert.equal(await items.get('pear'), undefined)
  assert.deepEqual(await items.get('apple'), { name: 'Apple', price: 1 })
  assert.equal(await items.has('apple'), true)
  await items.setMany(Array.from({ length: 500 }, (_, i) => [`k${i}`, { name: `n${i}`, price: i }] as const))
  assert.equal(await items.size(), 501)
  assert.deepEqual(await items.update('apple', draft => { draft!.price = 2; draft!.tags = ['new'] }), { name: 'Apple', price: 2, tags: ['new'] })
  assert.deepEqual(await items.update('fresh', draft => draft ?? { name: 'Fresh', price: 0 }), { name: 'Fresh', price: 0 })
  assert.equal(await items.delete('k0'), true)
  assert.equal(await items.delete('k0'), false)
  const live = await items.live('k1')
  live!.price = 100
  const version = await a.flush()
  const b = await openOn(relay)
  await b.reach(version)
  const theirs = b.map<Item>('items')
  assert.equal((await theirs.get('k1'))!.price, 100)
  assert.equal(await theirs.size(), 501)
  assert.equal(theirs.partitions.length, 8)
  assert.deepEqual([...(await theirs.getMany(['k7', 'nope', 'apple'])).keys()], ['k7', 'apple'])
  const keys: string[] = []
  for await (const key of theirs.keys()) keys.push(key)
  const entries: string[] = []
  for await (const [key, value] of theirs.entries()) {
    entries.push(key)
    assert.ok(Object.isFrozen(value))
  }
  assert.deepEqual(entries, keys)
  assert.equal(new Set(keys).size, 501)
  await theirs.clear()
  assert.equal(await theirs.size(), 0)
  await assert.rejects(items.update('x', (async () => {}) as never), TypeError)
})

test('add counts exactly', async () => {
  const relay = new FakeRelay()
  const all = await Promise.all([1, 2, 3].map(() => openOn(relay)))
  await Promise.all(all.map(async heap => {
    const scores = heap.map<number>('scores', { partitions: 4 })
    for (let i = 0; i < 10; i++) await scores.add('ann', 2)
    await heap.flush()
  }))
  for (const heap of all) {
    await heap.sync()
    assert.equal(await heap.map<number>('scores').get('ann'), 60)
  }
  const scores = all[0]!.map<number>('scores')
  await scores.set('bob', 5)
  assert.equal(await scores.add('bob'), 6)
  await scores.set('text', 'x' as never)
  await assert.rejects(scores.add('text'), TypeError)
})

test('S26: the number of partitions is set once', async () => {
  const relay = new FakeRelay()
  const a = await openOn(relay)
  const map = a.map<number>('m', { partitions: 16 })
  await map.set('x', 1)
  const b = await openOn(relay)
  await b.reach(await a.flush())
  await assert.rejects(b.map<number>('m', { partitions: 32 }).get('x'), { code: 'ERR_CONFLICT' })
  assert.throws(() => a.map<number>('m', { partitions: 8 }), { code: 'ERR_CONFLICT' })
  assert.throws(() => a.map<number>('n', { partitions: 0 }), RangeError)
  assert.throws(() => a.map<number>('n', { partitions: 65_534 }), { name: 'RangeError', message: /from 1 to 65533, not 65534/ })
  assert.equal(a.map<number>('most', { partitions: 65_533 }).partitions.length, 65_533)
  const c = await openOn(relay)
  assert.equal(await c.map<number>('m').get('x'), 1)
})

test('a map is watched by key, with what was before', async () => {
  const relay = new FakeRelay()
  const [a, b] = [await openOn(relay), await openOn(relay)]
  const heard: MapChange<Item>[] = []
  const items = a.map<Item>('items', { partitions: 4 })
  const stop = await items.watch(change => { heard.push(change) })
  const only: string[] = []
  await items.watch(change => { only.push(change.key) }, { keys: ['y'] })
  await items.set('x', { name: 'X', price: 1 })
  await a.flush()
  await b.sync()
  await b.map<Item>('items').update('x', draft => { draft!.price = 2 })
  await b.map<Item>('items').set('y', { name: 'Y', price: 0 })
  await b.flush()
  await a.sync()
  assert.deepEqual(heard.map(({ key, value, before, origin }) => [key, value?.price, before?.price, origin]), [
    ['x', 1, undefined, 'local'], ['x', 2, 1, 'remote'], ['y', 0, undefined, 'remote'],
  ])
  assert.deepEqual(only, ['y'])
  stop[Symbol.dispose]()
  await items.delete('x')
  await a.flush()
  assert.equal(heard.length, 3)
})

test('a partition that somebody made a list of is told once, and the others go on', async () => {
  const relay = new FakeRelay()
  // Not compared with its engine: its mirror is about to be falsified.
  const debug = process.env['COHEAP_DEBUG']
  delete process.env['COHEAP_DEBUG']
  const a = keep(await open<Any>('ws://test/heap/h', { webSocket: relay.socket, timeoutMs: 3000 }))
  process.env['COHEAP_DEBUG'] = debug
  const b = await openOn(relay)
  const errors: HeapError[] = []
  a.addEventListener('error', error => { errors.push(error) })
  const items = a.map<number>('items', { partitions: 2 })
  await items.setMany(Array.from({ length: 8 }, (_, i) => [`k${i}`, i] as const))
  const heard: string[] = []
  const others: string[] = []
  await items.watch(change => { heard.push(change.key) })
  a.watch(a.root, change => { others.push(String(change.patches[0]!.path[0])) })
  await b.reach(await a.flush())
  // What a hostile program could make of it, seen from inside: the first object of one partition is no map.
  const theirs = b.map<number>('items', { partitions: 2 })
  const [other, one] = await Promise.all(theirs.partitions.map(part => part.load()))
  const keys = ['k0', 'k1', 'k2', 'k3', 'k4', 'k5', 'k6', 'k7']
  const [inOne, inOther] = [one!, other!].map(part => keys.filter(key => part.get(key) !== undefined))
  const { space } = (items as unknown as { host: { space: Any } }).host
  const segment = (items as unknown as { segmentAt(index: number): Any }).segmentAt(one!.index)
  const root = segment['mirror'].root
  Object.defineProperty(segment['mirror'], 'root', { get: () => ({ ...root, kind: 1 }), configurable: true })
  for (let i = 1; i <= 3; i++) {
    b.transact(() => { one!.set(inOne![0]!, 100 + i); other!.set(inOther![0]!, 100 + i); b.root['seen'] = i })
    await a.reach(await b.flush())
  }
  assert.deepEqual(heard, Array(3).fill(inOther![0]))
  assert.deepEqual(others, Array(3).fill('seen'))
  assert.deepEqual(errors.map(error => error.code), ['ERR_CORRUPT'])
  await assert.rejects(items.watch(() => {}), { code: 'ERR_CORRUPT' })
  assert.equal([...space.segments].filter((each: Any) => each['watchers'] > 1).length, 0)
})

test('a tap that throws is told and stops neither the next nor the commit', async () => {
  const relay = new FakeRelay()
  const a = keep(await open<Any>('ws://test/heap/h', { webSocket: relay.socket, timeoutMs: 3000 }))
  const errors: HeapError[] = []
  a.addEventListener('error', error => { errors.push(error) })
  const { watchers } = (a.map('m') as unknown as { host: { watchers: { tap(fn: () => void): void } } }).host
  let told = 0
  watchers.tap(() => { throw new HeapError('ERR_CORRUPT', 'x') })
  watchers.tap(() => { told++ })
  a.root['x'] = 1
  await a.flush()
  assert.equal(told, 1)
  assert.deepEqual(errors.map(error => error.code), ['ERR_CORRUPT'])
})

test('clear() goes on through evictions and a relay that is behind, in commits that fit', async () => {
  const relay = new FakeRelay()
  const a = await openOn(relay, { budget: 64 * 1024, maxUnsaved: 20_000 })
  const map = a.map<string>('m', { partitions: 4 })
  const keys = Array.from({ length: 1200 }, (_, i) => `${i}-${'key'.repeat(20)}`)
  await map.setMany(keys.map(key => [key, 'x'] as const))
  await map.setMany(Array.from({ length: 300 }, (_, i) => [`${i}${'long'.repeat(1000)}`, ''] as const))
  await a.flush()
  const flush = map as unknown as { host: { flush(): Promise<unknown> } }
  const { host } = flush
  let evictions = 0
  const real = host.flush
  host.flush = async (...args: []) => {
    const version = await real(...args)
    await a.evict()
    evictions++
    return version
  }
  await map.clear()
  assert.ok(evictions > 0, 'the relay was never behind')
  await a.flush()
  assert.equal(await map.size(), 0)
  assert.ok(a.stats().evictions > 0)
})

test('partitions are synchronous once loaded, and part of transactions', async () => {
  const relay = new FakeRelay()
  const a = await openOn(relay, { initial: { total: 0 } })
  const map = a.map<number>('m', { partitions: 4 })
  const part = map.partitionOf('key')
  assert.throws(() => part.get('key'), { code: 'ERR_NOT_LOADED' })
  assert.equal(await part.load(), part)
  assert.ok(part.loaded)
  assert.throws(() => a.transact(() => { part.set('key', 5); throw new Error('no') }), /no/)
  assert.equal(part.get('key'), undefined)
  const commits = a.stats().commits
  a.transact(() => { part.set('key', 5); a.root['total'] = 5 })
  assert.equal(a.stats().commits, commits + 1)
  assert.equal(part.get('key'), 5)
  assert.equal(part.size, 1)
  assert.deepEqual([...part.entries()], [['key', 5]])
  const stranger = ['a', 'b', 'c', 'd', 'e', 'f'].find(key => map.partitionOf(key).index !== part.index)!
  assert.throws(() => part.set(stranger, 1), RangeError)
  assert.equal(part.delete('key'), true)
  assert.throws(() => part.done(), TypeError)
  await a.flush()
  const b = await openOn(relay)
  const theirs = b.map<number>('m')
  await b.run(() => { theirs.partitionOf('key').set('key', 7) })
  assert.equal(await theirs.get('key'), 7)
})

test('a partition that somebody loads by its Ref is an empty one, if nobody has made it, to both', async () => {
  const relay = new FakeRelay()
  const a = await openOn(relay)
  const map = a.map<number>('m', { partitions: 2 })
  await map.size()
  const b = await openOn(relay)
  const [here, part] = b.map<number>('m', { partitions: 2 }).partitions
  // The map is known here, this partition of it is not.
  await here!.load()
  let ref: Ref<Any> | undefined
  assert.throws(() => part!.size, (error: HeapError) => { ref = (error.details['refs'] as Ref<Any>[])[0]; return error.code === 'ERR_NOT_LOADED' })
  const byRef = b.ref<Any>(ref!.id).load()
  const [live] = await Promise.all([byRef, part!.load()])
  assert.deepEqual(snapshot(live), {})
  part!.set(['a', 'b', 'c', 'd'].find(key => map.partitionOf(key).index === 1)!, 1)
  assert.equal(Object.keys(live).length, 1)
})

test('over its budget a heap lets go of what it used least recently, but not of what is pinned or watched', async () => {
  const world = new FixedWorld(1)
  try {
    const relay = new FakeRelay()
    const a = await openOn(relay)
    const refs = Array.from({ length: 30 }, (_, i) => a.alloc({ data: 'x'.repeat(5000) + i }))
    const version = await a.flush()
    const b = await openOn(relay, { budget: '200kb' })
    await b.reach(version)
    const evicted: string[] = []
    b.addEventListener('evicted', event => { for (const ref of event.refs) evicted.push(ref.id) })
    const [pinned, watched, ...rest] = refs.map(ref => b.ref<Any>(ref.id))
    b.pin(pinned!)
    await pinned!.load()
    await watched!.load()
    b.watch(watched!, () => {})
    for (const ref of rest) {
      await ref.load()
      world.collect()
      world.pass(1)
      assert.ok(b.status.residentBytes <= 200 * 1024, `${b.status.residentBytes} resident`)
    }
    assert.deepEqual(evicted, rest.slice(0, evicted.length).map(ref => ref.id))
    // Half of the budget holds bytes alone: more of them than mirrors and documents would be.
    assert.ok(evicted.length > 10, `${evicted.length} evicted`)
    const loads = b.stats().loads
    const last = rest.slice(-8).map(ref => (ref.peek() as Any)['data'] as string)
    assert.deepEqual(last.map(data => data.length), [5002, 5002, 5002, 5002, 5002, 5002, 5002, 5002])
    assert.equal(b.stats().loads, loads, 'what is here as bytes is read without asking for it')
    assert.equal(b.stats().evictions, evicted.length)
    assert.equal((await rest[0]!.load())['data'].length, 5001)
  } finally {
    world.end()
  }
})

test('a big map is larger than the budget, and all of it can be read', async () => {
  const relay = new FakeRelay()
  const c = await openOn(relay, { budget: '200kb' })
  const map = c.map<string>('big', { partitions: 64 })
  for (let i = 0; i < 200; i++) {
    await map.set(`k${i}`, 'y'.repeat(1000))
    // Partitions that are here as bytes are there at once, so nothing else gives the relay a turn.
    if (i % 40 === 39) await c.flush()
  }
  let count = 0
  for await (const [key, value] of map.entries()) {
    assert.equal(value.length, 1000, key)
    count += 1
  }
  assert.equal(count, 200)
  await sleep(5)
  const stats = c.stats()
  console.error('DBG', JSON.stringify(stats), JSON.stringify(c.status))
  assert.ok(stats.evictions > 20, `${stats.evictions} evictions`)
  assert.ok(c.status.residentBytes <= 220 * 1024, `${c.status.residentBytes} resident`)
  assert.equal((await map.get('k5'))!.length, 1000)
})

test('a live object keeps its segment, and stays the same object', async () => {
  const relay = new FakeRelay()
  const a = await openOn(relay, { budget: '100kb' })
  const ref = a.alloc({ data: 'x'.repeat(1000) })
  const live = ref.value
  for (let i = 0; i < 60; i++) {
    a.alloc({ data: 'y'.repeat(2000) })
    await a.flush()
  }
  await sleep(5)
  assert.equal(ref.value, live)
  ;(live as Any)['more'] = 1
  await a.flush()
  assert.ok(a.stats().evictions > 0)
})

test('heaps may share a budget', async () => {
  const relay = new FakeRelay()
  const budget = createBudget('150kb')
  const [a, b] = [await openOn(relay, { budget }), await openOn(relay, { budget })]
  for (const heap of [a, b]) {
    const map = heap.map<string>('m', { partitions: 32 })
    for (let i = 0; i < 60; i++) await map.set(`${i}`, 'z'.repeat(500))
    await heap.flush()
  }
  await sleep(5)
  assert.ok(a.status.residentBytes + b.status.residentBytes <= 160 * 1024)
  assert.throws(() => createBudget('lots'), TypeError)
  assert.throws(() => createBudget(-1), RangeError)
})

test('after close, loads and claims that wait end', async () => {
  const relay = new FakeRelay()
  const a = await openOn(relay)
  relay.down = true
  relay.cut()
  const loading = a.ref('coheap:' + 'A'.repeat(22)).load()
  const claiming = a.claim(a.ref('coheap:' + 'A'.repeat(22)))
  loading.catch(() => {})
  claiming.catch(() => {})
  await closeClean(a)
  await assert.rejects(loading, (error: HeapError) => error.code === 'ERR_CLOSED')
  await assert.rejects(claiming, (error: HeapError) => error.code === 'ERR_CLOSED')
  assert.deepEqual(snapshot(a.root), {})
})

test('S24: what is really held over the budget is told, and loads fail until it is let go', async () => {
  const relay = new FakeRelay()
  const a = await openOn(relay)
  const ids: string[] = []
  for (let i = 0; i < 60; i++) ids.push(a.alloc({ data: 'x'.repeat(1000) + i }).id)
  const version = await a.flush()
  const b = keep(await open<Any>('ws://test/heap/h', { webSocket: relay.socket, budget: '200kb' }))
  await b.reach(version)
  const codes: string[] = []
  b.addEventListener('error', error => { codes.push(error.code) })
  // Loaded and let go: the collector is made to see it, and the heap comes under its budget although nothing happens.
  const some = ids.slice(0, 40).map(id => b.ref(id))
  await b.load(some).then(() => {})
  await sleep(3000)
  assert.ok(b.status.residentBytes <= 200 * 1024, `${b.status.residentBytes} resident`)
  assert.deepEqual(codes, [])
  const held: object[] = []
  await b.load(some).then(objects => { held.push(...objects) })
  await sleep(6000)
  assert.deepEqual(codes, ['ERR_OVER_BUDGET'])
  await assert.rejects(b.ref(ids[50]!).load(), { code: 'ERR_OVER_BUDGET', retryable: true })
  assert.equal(held.length, 40)
  held.length = 0
  await sleep(4000)
  await b.ref(ids[50]!).load()
})
