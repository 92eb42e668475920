// Heaps end to end over a relay in memory: the real engine, the real wire, several replicas in one process.
import assert from 'node:assert/strict'
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { afterEach, test } from 'node:test'
import { isDeepStrictEqual } from 'node:util'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { counter, HeapError, move, open, set, snapshot, text, type Counter, type LiveSet, type Ref, type Text } from '../src/index.js'
import { assertClean, closeAll, closeClean, expecting, keep, openOn } from './clean.js'
import { FakeRelay } from './fake-relay.js'

afterEach(closeAll)

interface App { title: string; jobs: { name: string; done: boolean }[]; visits: Counter; notes: Text; tags: LiveSet<string>; any: Record<string, unknown> }

test('what one replica writes, another reads', async () => {
  const relay = new FakeRelay()
  const a = await openOn<App>(relay, { initial: { title: '', jobs: [], visits: counter(), notes: text(), tags: set(), any: {} }, name: 'a' })
  const b = await openOn<App>(relay)
  a.root.title = 'Corner shop'
  a.root.visits.add(2)
  a.root.notes.insert(0, 'hello')
  a.root.tags.add('x').add('y')
  a.root.jobs.push({ name: 'ship', done: false }, { name: 'pack', done: false })
  a.root.any['deep'] = { list: [1, [2, { three: 3n }]], when: new Date(5), bytes: Uint8Array.of(1, 2) }
  await b.reach(await a.flush())
  assert.deepEqual(snapshot(b.root), snapshot(a.root))
  assert.equal(b.root.visits.value, 2)
  b.root.visits.add(1)
  a.root.visits.add(1)
  b.root.jobs[0]!.done = true
  b.root.notes.update('hello world')
  await b.flush()
  await a.sync()
  assert.equal(a.root.visits.value, 4)
  assert.equal(a.root.jobs[0]!.done, true)
  assert.equal(String(a.root.notes), 'hello world')
})

test('S2: ten replicas that create the same place offline meet in one object', async () => {
  const relay = new FakeRelay()
  type Meet = { a?: Record<string, number>; n?: Counter; l?: number[]; deep?: Record<string, Record<string, number>> }
  const all = await Promise.all(Array.from({ length: 10 }, () => openOn<Meet>(relay)))
  relay.down = true
  relay.cut()
  all.forEach((heap, i) => {
    const { root } = heap
    root.a ??= {}
    for (let k = 0; k < 10; k++) root.a[`k${i}.${k}`] = k
    root.n ??= counter()
    root.n.add(1)
    root.l ??= []
    root.l.push(i)
    root.deep ??= {}
    root.deep['same'] ??= {}
    root.deep['same'][`r${i}`] = i
  })
  relay.down = false
  await Promise.all(all.map(heap => heap.flush({ timeoutMs: 5000 })))
  await Promise.all(all.map(heap => heap.sync()))
  for (const heap of all) {
    assert.equal(Object.keys(heap.root.a!).length, 100)
    assert.equal(heap.root.n!.value, 10)
    assert.deepEqual([...heap.root.l!].sort(), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    assert.equal(Object.keys(heap.root.deep!['same']!).length, 10)
    assert.deepEqual(snapshot(heap.root), snapshot(all[0]!.root))
  }
})

test('S3: initial fills what is absent, once, and any real write wins', async () => {
  const relay = new FakeRelay()
  const a = await openOn<Any>(relay, { initial: { title: 'new', n: counter(3), list: [1, 2] } })
  const b = await openOn<Any>(relay, { initial: { title: 'other', n: counter(3), list: [1, 2], more: true } })
  await a.flush()
  await b.flush()
  await a.sync()
  assert.deepEqual(snapshot(a.root), { list: [1, 2], more: true, n: 3, title: 'new' })
  b.root['title'] = 'mine'
  delete b.root['more']
  await b.flush()
  const c = await openOn<Any>(relay, { initial: { title: 'new', more: true } })
  await c.flush()
  assert.deepEqual(snapshot(c.root), { list: [1, 2], n: 3, title: 'mine' })
  await assert.rejects(openOn<Any>(relay, { initial: { t: text('x') } }), TypeError)
})

type Any = Record<string, any>

test('S13: transact is one commit, a throw undoes all, a thenable is refused', async () => {
  const relay = new FakeRelay()
  const a = await openOn<Any>(relay, { initial: { list: [], n: counter() } })
  await a.flush()
  const before = relay.log.length
  a.root['pending'] = 1
  const result = a.transact(() => {
    a.root['x'] = 1
    a.root['list'].push({ y: 1 })
    a.transact(() => a.root['n'].add(1))
    return a.root['list'].length as number
  }, { label: 'mine' })
  assert.equal(result, 1)
  await a.flush()
  assert.equal(relay.log.length, before + 2)
  assert.equal(relay.log.at(-1)!.label, 'mine')
  const state = snapshot(a.root)
  const boom = new Error('mine')
  assert.throws(() => a.transact(() => { a.root['x'] = 2; a.root['list'].push(1); a.root['n'].add(1); a.alloc({}); throw boom }), error => error === boom)
  assert.throws(() => a.transact((async () => { a.root['x'] = 3 }) as never), TypeError)
  assert.ok(isDeepStrictEqual(snapshot(a.root), state))
  assert.throws(() => a.transact(() => {}, { label: 'x'.repeat(2000) }), { code: 'ERR_TOO_LARGE' })
  a.transact(() => a.root['x'])
  await a.flush()
  assert.equal(relay.log.length, before + 2)
})

test('S14: a microtask is one commit, big batches are split, too large a transaction is undone', async () => {
  const relay = new FakeRelay()
  const a = await openOn<Any>(relay)
  a.root['a'] = 1
  a.root['b'] = 2
  await a.flush()
  assert.equal(relay.log.length, 1)
  for (let i = 0; i < 2500; i++) a.root[`k${i}`] = i
  await a.flush()
  assert.equal(relay.log.length, 4)
  const state = snapshot(a.root)
  assert.throws(() => a.transact(() => { for (let i = 0; i < 6; i++) a.root[`big${i}`] = 'x'.repeat(200_000) }), { code: 'ERR_TOO_LARGE' })
  assert.ok(isDeepStrictEqual(snapshot(a.root), state))
  for (let i = 0; i < 6; i++) a.root[`big${i}`] = 'x'.repeat(200_000)
  await a.flush()
  assert.equal(Object.keys(a.root).length, 2508)
})

test('alloc, refs, load and run', async () => {
  const relay = new FakeRelay()
  interface Job { title: string; done: boolean; sub?: { deep: number } }
  const a = await openOn<{ jobs: Ref<Job>[]; first?: Ref<Job>; inner?: Ref<object> }>(relay, { initial: { jobs: [] } })
  const job = a.alloc<Job>({ title: 'ship', done: false, sub: { deep: 1 } })
  assert.match(job.id, /^coheap:[\w-]{22}$/)
  assert.equal(job.value.title, 'ship')
  a.transact(() => { a.root.jobs.push(job); a.root.first = job; a.root.jobs.push(a.alloc<Job>({ title: 'pack', done: false })) })
  assert.equal(a.root.jobs[0], job)
  assert.equal(a.ref(job.id), job)
  assert.equal(a.root.jobs.indexOf(job), 0)
  assert.equal(a.refOf(job.value), job)
  const inner = a.refOf(job.value.sub!)
  assert.match(inner.id, /^coheap:[\w-]{22}#[\w-]{22}$/)
  a.root.inner = inner
  assert.equal((inner.value as { deep: number }).deep, 1)
  assert.equal(JSON.stringify(a.root.first), JSON.stringify({ $ref: job.id }))
  const b = await openOn<{ jobs: Ref<Job>[]; inner: Ref<{ deep: number }> }>(relay)
  await b.reach(await a.flush())
  const theirs = b.root.jobs[0]!
  assert.equal(theirs.id, job.id)
  assert.equal(theirs.peek(), undefined)
  assert.throws(() => theirs.value, { code: 'ERR_NOT_LOADED' })
  await b.run(() => { for (const ref of b.root.jobs) ref.value.done = true })
  assert.equal(theirs.peek()!.title, 'ship')
  assert.equal((await b.root.inner.load()).deep, 1)
  b.root.inner.value.deep = 2
  await a.reach(await b.flush())
  assert.equal(job.value.done, true)
  assert.equal(job.value.sub!.deep, 2)
  for (const bad of ['', 'coheap:', 'coheap:x', job.id + '#', 'http:' + job.id, undefined]) assert.throws(() => a.ref(bad as string), TypeError)
  await assert.rejects(a.ref('coheap:' + 'A'.repeat(22)).load(), { code: 'ERR_NOT_FOUND' })
  assert.throws(() => a.alloc(5 as never), TypeError)
  assert.throws(() => { a.root.first = theirs }, /another heap/)
  delete (job.value as Partial<Job>).sub
  assert.throws(() => inner.value, { code: 'ERR_DELETED' })
  assert.deepEqual((await a.load([job])).map(live => live.title), ['ship'])
  await assert.rejects(a.load(job as never), { name: 'TypeError', message: /ref\.load\(\)/ })
})

test('S28: watchers hear of each commit once, in order, after it', async () => {
  const relay = new FakeRelay()
  const a = await openOn<Any>(relay, { initial: { box: { list: [1, 2], n: counter() }, other: 1 }, name: 'ann' })
  const b = await openOn<Any>(relay)
  const heard: any[] = []
  const shallow: any[] = []
  const chosen: any[] = []
  const box = a.root['box'] as Any
  const stop = a.watch(box, change => { heard.push(change) })
  a.watch(box, change => { shallow.push(change.patches) }, { deep: false })
  a.watch(() => a.root['box']?.list?.length as number | undefined, (now, before) => { chosen.push([now, before]) })
  a.watch(() => a.root['box']?.list, list => { chosen.push(list === undefined ? undefined : [...list]) })
  a.transact(() => { box['list'].push(3); box['list'][0] = 9; box['x'] = { y: 1 } }, { label: 'edit' })
  a.root['other'] = 2
  assert.equal(heard.length, 0)
  await a.flush()
  assert.equal(heard.length, 1)
  assert.equal(heard[0].label, 'edit')
  assert.equal(heard[0].origin, 'local')
  assert.equal(heard[0].by.name, 'ann')
  assert.equal(heard[0].by.replica, a.replica)
  assert.deepEqual(heard[0].patches, [
    { op: 'insert', path: ['list'], index: 2, values: [3] }, { op: 'set', path: ['list', 0], value: 9, before: 1 }, { op: 'set', path: ['x'], value: { y: 1 }, before: undefined },
  ])
  assert.deepEqual(shallow, [[{ op: 'set', path: ['x'], value: { y: 1 }, before: undefined }]])
  assert.deepEqual(chosen, [[3, 2], [9, 2, 3]])
  await b.sync()
  b.root['box']['n'].add(4)
  await b.flush()
  await a.sync()
  assert.equal(heard[1].origin, 'remote')
  assert.equal(heard[1].by.replica, b.replica)
  assert.deepEqual(heard[1].patches, [{ op: 'add', path: ['n'], by: 4 }])
  a.root['box'] = { list: [] }
  await a.flush()
  assert.equal(heard.at(-1).detached, true)
  const count = heard.length
  box && (a.root['box']['list'].push(1))
  await a.flush()
  assert.equal(heard.length, count)
  stop[Symbol.dispose]()
})

test('a listener that throws stops neither the next nor the heap', async () => {
  const relay = new FakeRelay()
  const a = keep(await open<Any>('ws://test/heap/h', { webSocket: relay.socket }))
  const errors: HeapError[] = []
  const heard: number[] = []
  a.addEventListener('error', error => { errors.push(error) })
  a.watch(a.root, () => { throw new Error('mine') })
  a.watch(a.root, () => { heard.push(1) })
  a.root['x'] = 1
  await a.flush()
  assert.deepEqual(heard, [1])
  assert.equal((errors[0]!.cause as Error).message, 'mine')
  assert.deepEqual([errors[0]!.code, errors[0]!.details, errors.length], ['ERR_LISTENER', {}, 1])
})

test('changes() is a watch that is read', async () => {
  const relay = new FakeRelay()
  const a = await openOn<Any>(relay)
  const seen: unknown[] = []
  const reading = (async () => {
    for await (const change of a.changes(a.root)) {
      seen.push(change.patches[0])
      if (seen.length === 2) break
    }
  })()
  a.root['x'] = 1
  await a.flush()
  a.root['y'] = 2
  await a.flush()
  await reading
  assert.deepEqual(seen, [{ op: 'set', path: ['x'], value: 1, before: undefined }, { op: 'set', path: ['y'], value: 2, before: undefined }])
})

test('P4: commits made while the relay is away arrive once, in order', async () => {
  const relay = new FakeRelay()
  const a = await openOn<Any>(relay, { initial: { list: [] } })
  const b = await openOn<Any>(relay)
  await a.flush()
  relay.silent = true
  a.root['list'].push(1)
  await new Promise(resolve => setTimeout(resolve, 20))
  relay.silent = false
  relay.cut()
  a.root['list'].push(2)
  await a.flush({ timeoutMs: 3000 })
  a.root['list'].push(3)
  const version = await a.flush()
  await b.reach(version)
  assert.deepEqual([...b.root['list']], [1, 2, 3])
  assert.equal(a.status.unsaved, 0)
})

test('S15: a refused commit is undone at its author, later ones stand, and the waiting flush says why', async () => {
  const relay = new FakeRelay()
  const a = await openOn<Any>(relay, { initial: { box: { n: 0 } } })
  await a.flush()
  const box = a.root['box'] as Any
  const heard: any[] = []
  const refused: any[] = []
  a.watch(box, change => { heard.push(...change.patches) })
  a.addEventListener('refused', event => { refused.push(event) })
  relay.refuseNext = 36
  expecting(a, { refused: 1, rebuilds: 1 })
  a.transact(() => { box['n'] = 1 }, { label: 'no' })
  const flush = a.flush()
  a.transact(() => { box['m'] = 2 })
  await assert.rejects(flush, (error: HeapError) => error.code === 'ERR_REFUSED' && error.details['code'] === 'ERR_FORBIDDEN' && error.details['label'] === 'no')
  await a.flush()
  await a.sync()
  assert.equal(a.root['box'], box)
  assert.deepEqual(snapshot(box), { m: 2, n: 0 })
  assert.equal(refused.length, 1)
  assert.equal(refused[0].code, 'ERR_FORBIDDEN')
  assert.deepEqual(heard.at(-1), { op: 'set', path: ['n'], value: 0, before: 1 })
})

test('S15, S19: a refused commit is not unsaved: close() does not wait for it', async () => {
  const relay = new FakeRelay()
  const a = await openOn<Any>(relay)
  relay.refuseNext = 36
  expecting(a, { refused: 1, rebuilds: 1 })
  a.transact(() => { a.root['n'] = 1 })
  assert.equal(a.status.unsaved, 1)
  await assert.rejects(a.flush(), { code: 'ERR_REFUSED' })
  assert.deepEqual([a.status.unsaved, a.status.unsavedMs, a.stats().bytes.queued], [0, 0, 0])
  await a.sync()
  assert.deepEqual(snapshot(a.root), {})
  await closeClean(a)
})

test('S16: over the unsaved limit writes throw, and flush is the way to wait', async () => {
  const relay = new FakeRelay()
  const a = await openOn<Any>(relay, { maxUnsaved: 5000 })
  relay.silent = true
  let thrown: HeapError | undefined
  try {
    for (let i = 0; i < 100; i++) a.transact(() => { a.root[`k${i}`] = 'x'.repeat(500) })
  } catch (error) {
    thrown = error as HeapError
  }
  assert.equal(thrown?.code, 'ERR_UNSAVED_LIMIT')
  assert.equal(thrown.retryable, true)
  relay.silent = false
  relay.cut()
  await a.flush({ timeoutMs: 3000 })
  a.root['after'] = 1
  await a.flush()
})

test('S17, S18: names, create: false, timeouts and refusals', async () => {
  const relay = new FakeRelay()
  for (const bad of ['http://x/heap/h', 'ws://x/', 'ws://x/heap/', 'nonsense', `ws://x/heap/${'n'.repeat(129)}`]) await assert.rejects(open(bad, { webSocket: relay.socket }), TypeError)
  await assert.rejects(open('ws://x/heap/h', { webSocket: relay.socket, create: false }), { code: 'ERR_NOT_FOUND' })
  relay.closeNext = 4005
  await assert.rejects(open('ws://x/heap/h', { webSocket: relay.socket }), { code: 'ERR_AUTH', retryable: false })
  relay.down = true
  await assert.rejects(open('ws://x/heap/h', { webSocket: relay.socket, timeoutMs: 100 }), { code: 'ERR_TIMEOUT', retryable: true })
  const abort = new AbortController()
  const opening = open('ws://x/heap/h', { webSocket: relay.socket, signal: abort.signal })
  abort.abort(new Error('enough'))
  await assert.rejects(opening, /enough/)
  relay.down = false
  await openOn(relay)
  assert.equal(relay.log.length, 0)
})

test('S19, S20: close waits for what is unsaved, says what it lost, and afterwards reads go on and writes throw', async () => {
  const relay = new FakeRelay()
  const a = await openOn<Any>(relay, { initial: { box: { x: 1 } } })
  const box = a.root['box'] as Any
  a.root['y'] = 1
  await closeClean(a)
  assert.equal(relay.log.length, 2)
  assert.equal(box['x'], 1)
  assert.equal(a.status.connection, 'closed')
  assert.throws(() => { box['x'] = 2 }, { code: 'ERR_CLOSED' })
  assert.throws(() => a.transact(() => {}), { code: 'ERR_CLOSED' })
  await assert.rejects(a.flush(), { code: 'ERR_CLOSED' })
  assert.throws(() => a.alloc({}), { code: 'ERR_CLOSED' })
  await a.close()
  const b = await openOn<Any>(relay)
  relay.silent = true
  b.root['z'] = 1
  const waiting = b.sync()
  assertClean(b)
  await assert.rejects(b.close({ timeoutMs: 50 }), (error: HeapError) => error.code === 'ERR_UNSAVED' && error.details['unsaved'] === 1)
  await waiting.catch(error => assert.equal(error.code, 'ERR_CLOSED'))
})

test('who holds a closed heap, and objects of it, holds no memory of its wasm instance', async () => {
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as () => void
  const memories: WeakRef<object>[] = []
  const { Instance } = WebAssembly
  WebAssembly.Instance = class extends Instance {
    constructor(module: WebAssembly.Module, imports?: WebAssembly.Imports) {
      super(module, imports)
      memories.push(new WeakRef(this.exports['memory'] as object))
    }
  }
  try {
    const relay = new FakeRelay()
    const [closed, lives] = [await openOn<Any>(relay, { initial: { box: { x: 1 } } }), await openOn<Any>(relay)]
    const box = closed.root['box'] as Any
    await closeClean(closed)
    assert.deepEqual([closed.stats().bytes.wasm, closed.stats().bytes.packed], [0, 0])
    const there = (): boolean[] => memories.map(memory => memory.deref() !== undefined)
    for (let turn = 0; there()[0] === true && turn < 50; turn++) {
      await new Promise(resolve => setTimeout(resolve, 10))
      collect()
    }
    assert.deepEqual(there(), [false, true])
    assert.equal(box['x'], 1)
    assert.ok(lives.stats().bytes.wasm > 0)
  } finally {
    WebAssembly.Instance = Instance
  }
})

test('waits end with a timeout or a signal', async () => {
  const relay = new FakeRelay()
  const a = await openOn<Any>(relay)
  relay.down = true
  relay.cut()
  await assert.rejects(a.sync({ timeoutMs: 30 }), { code: 'ERR_TIMEOUT' })
  await assert.rejects(a.flush({ signal: AbortSignal.abort(new Error('no')) }), /no/)
  await assert.rejects(a.reach('nonsense'), TypeError)
  relay.down = false
  await a.sync({ timeoutMs: 3000 })
})

test('presence shows who is there', async () => {
  const relay = new FakeRelay()
  const a = await openOn<Any>(relay, { name: 'ann' })
  const b = await openOn<Any>(relay, { name: 'bob' })
  const [pa, pb] = [a.presence<{ doing: string }>(), b.presence<{ doing: string }>()]
  const seen = new Promise<void>(resolve => { pb.watch(members => { if (members.get(a.replica)?.state.doing === 'step 3') resolve() }) })
  pa.set({ doing: 'step 2' })
  pa.update({ doing: 'step 3' })
  await seen
  assert.equal(pb.members.get(a.replica)!.author.name, 'ann')
  assert.equal(pa.me, a.replica)
  pa.clear()
  while (pb.members.size > 0) await new Promise(resolve => setTimeout(resolve, 5))
})

test('diagnostics channels tell of loads, commits, what is applied and waits, to who listens', async () => {
  const relay = new FakeRelay()
  const told: [string, Any][] = []
  const names = ['coheap:load', 'coheap:commit', 'coheap:apply', 'coheap:sync']
  const listen = (message: unknown, name: string | symbol): void => { told.push([String(name), message as Any]) }
  for (const name of names) subscribe(name, listen)
  const a = await openOn<Any>(relay)
  const b = await openOn<Any>(relay)
  a.transact(() => { a.root['x'] = 1 }, { label: 'first' })
  await a.flush()
  await b.sync()
  relay.silent = true
  a.root['x'] = 2
  await assert.rejects(a.flush({ timeoutMs: 20 }), { code: 'ERR_TIMEOUT' })
  for (const name of names) unsubscribe(name, listen)
  await b.sync()
  const of = (name: string) => told.filter(each => each[0] === name).map(each => each[1])
  const root = of('coheap:load')[0]!['ref'] as string
  assert.match(root, /^coheap:[\w-]{22}$/)
  assert.deepEqual(of('coheap:load').map(({ heap, ref }) => [heap, ref]), Array(2).fill(['h', root]))
  assert.deepEqual(of('coheap:commit'), [{ heap: 'h', label: 'first', refs: [root], unsaved: 1 }, { heap: 'h', label: '', refs: [root], unsaved: 1 }])
  assert.deepEqual(of('coheap:apply').map(({ heap, label, refs, by }) => [heap, label, refs, by.replica]), [['h', 'first', [root], a.replica]])
  assert.deepEqual(of('coheap:sync').map(({ wait, error }) => [wait, (error as HeapError | undefined)?.code]), [['flush', undefined], ['sync', undefined], ['flush', 'ERR_TIMEOUT']])
  assert.ok(of('coheap:sync')[2]!['ms'] >= 15)
})
