// Segments that keep their history, and the move of a heap into the module that can read them.
import assert from 'node:assert/strict'
import { cp, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, test } from 'node:test'
import { pathToFileURL } from 'node:url'
import { counter, snapshot, text, type HeapError, type open, type Counter, type Heap, type Ref, type Text } from '../src/index.js'
import { closeAll, closeClean, openOn } from './clean.js'
import { FakeRelay } from './fake-relay.js'

interface Doc { title: string; body: Text; reads: Counter; tags: string[]; inner?: Ref<Doc> }
interface App { docs: Ref<Doc>[]; n: number; visits: Counter }

const doc = (title: string): Doc => ({ title, body: text(''), reads: counter(), tags: [] })

function heapOn(relay: FakeRelay, name = 'a'): Promise<Heap<App>> {
  return openOn<App>(relay, { name, initial: { docs: [], n: 0, visits: counter() } })
}

afterEach(closeAll)

// The first of these tests is the one that fetches the module: the others find it there.
test('alloc with history: visible at once, in its order with what is written before the module is there', async () => {
  const relay = new FakeRelay()
  const a = await heapOn(relay)
  await a.flush()
  const commits = relay.log.length
  const labels: (string | undefined)[] = []
  a.watch(a.root, change => { labels.push(change.label) })
  a.root.n = 1
  const ref = a.transact(() => {
    const made = a.alloc(doc('one'), { history: true })
    a.root.docs.push(made)
    made.value.tags.push('new')
    return made
  }, { label: 'make' })
  a.transact(() => { ref.value.title = 'two'; ref.value.reads.add(2); a.root.visits.add(1) }, { label: 'change' })
  a.root.n = 3
  assert.equal(a.root.docs[0], ref)
  assert.deepEqual(snapshot(ref.value), { title: 'two', body: '', reads: 2, tags: ['new'] })
  await Promise.resolve()
  assert.equal(a.status.unsaved >= 3, true)
  await a.flush({ timeoutMs: 10_000 })
  assert.equal(relay.log.length, commits + 4)
  assert.deepEqual(relay.log.slice(commits).map(entry => entry.label), [undefined, 'make', 'change', undefined])
  assert.deepEqual(labels, [undefined, 'make', 'change', undefined])
  const made = relay.log[commits + 1]!.parts.find(part => part.kind === 1)
  assert.equal(made?.engine, 1)
  assert.equal(a.status.unsaved, 0)

  const b = await heapOn(relay, 'b')
  const there = await b.root.docs[0]!.load({ timeoutMs: 10_000 })
  assert.deepEqual(snapshot(there), { title: 'two', body: '', reads: 2, tags: ['new'] })
  assert.equal(b.root.n, 3)
  await closeClean(a)
  await closeClean(b)
})

test('a heap that meets history goes on where it was: handles, refs, watchers, unsaved edits and waits', async () => {
  const relay = new FakeRelay()
  const a = await heapOn(relay, 'a')
  const ref = a.alloc(doc('there'), { history: true })
  a.root.docs.push(ref)
  await a.flush({ timeoutMs: 10_000 })

  const b = await heapOn(relay, 'b')
  const plain = b.alloc({ list: [1, 2, { deep: text('x') }] })
  const deep = plain.value.list[2] as { deep: Text }
  const seen: unknown[] = []
  b.watch(plain.value, change => { seen.push(change.patches.length) })
  const before = snapshot(plain.value)
  relay.silent = true
  b.root.n = 7
  const flushed = b.flush({ timeoutMs: 10_000 })
  let loaded = false
  const loading = b.root.docs[0]!.load({ timeoutMs: 10_000 }).then(live => { loaded = true; return live })
  await new Promise(resolve => setTimeout(resolve, 20))
  relay.silent = false
  const live = await loading
  assert.equal(loaded, true)
  assert.equal(live.title, 'there')
  await flushed
  assert.equal(snapshot(plain.value), before, 'a snapshot of what did not change stays the same object')
  assert.equal(plain.value.list[2], deep)
  deep.deep.insert(1, 'y')
  live.body.insert(0, 'hello')
  live.reads.add(1)
  await b.flush({ timeoutMs: 10_000 })
  await a.sync({ timeoutMs: 10_000 })
  assert.equal(String(ref.value.body), 'hello')
  assert.equal(a.root.n, 7)
  assert.equal((await a.ref<typeof before & object>(plain.id).load() as typeof plain.value).list.length, 3)
  assert.equal(seen.length > 0, true)
  await closeClean(a)
  await closeClean(b)
})

test('one who wrote offline before it met history loses nothing, and counts once', async () => {
  const relay = new FakeRelay()
  const a = await heapOn(relay, 'a')
  const b = await heapOn(relay, 'b')
  await a.flush()
  await b.flush()
  relay.down = true
  relay.cut()
  for (let i = 0; i < 20; i++) {
    b.root.visits.add(1)
    await Promise.resolve()
  }
  const ref = b.transact(() => {
    const made = b.alloc(doc('offline'), { history: true })
    b.root.docs.push(made)
    return made
  })
  b.root.visits.add(1)
  await new Promise(resolve => setTimeout(resolve, 150))
  assert.equal(b.status.unsaved >= 22, true)
  ref.value.title = 'still offline'
  relay.down = false
  await b.flush({ timeoutMs: 10_000 })
  await a.sync({ timeoutMs: 10_000 })
  assert.equal(a.root.visits.value, 21)
  assert.equal((await a.root.docs[0]!.load({ timeoutMs: 10_000 })).title, 'still offline')
  await closeClean(a)
  await closeClean(b)
})

test('a throw in a transaction leaves no segment with history behind', async () => {
  const relay = new FakeRelay()
  const a = await heapOn(relay)
  await a.flush()
  const commits = relay.log.length
  let made: Ref<Doc> | undefined
  assert.throws(() => a.transact(() => { made = a.alloc(doc('no'), { history: true }); a.root.docs.push(made); throw new Error('undo') }), /undo/)
  assert.equal(a.root.docs.length, 0)
  assert.throws(() => made!.value, (error: HeapError) => error.code === 'ERR_NOT_LOADED')
  await a.sync()
  assert.equal(relay.log.length, commits)
  await closeClean(a)
})

test('without the module, what waited for it is undone and told, and the rest goes on', async () => {
  const relay = new FakeRelay()
  // The package as it is, but for the one file that is fetched.
  const home = await mkdtemp(join(tmpdir(), 'coheap-'))
  await cp(new URL('../src/', import.meta.url), join(home, 'src'), { recursive: true })
  await writeFile(join(home, 'package.json'), '{"type":"module"}')
  await rm(join(home, 'src/wasm-full.js'))
  const { open: openThere } = await import(pathToFileURL(join(home, 'src/index.js')).href) as { open: typeof open }
  const heap = await openThere<App & { later?: number }>('ws://test/heap/h', { webSocket: relay.socket, initial: { docs: [], n: 0 } })
  const errors: string[] = []
  heap.addEventListener('error', error => { errors.push(error.code) })
  await heap.flush()
  heap.root.n = 1
  heap.transact(() => { heap.root.n = 2; heap.root.docs.push(heap.alloc({ title: 'lost' } as Doc, { history: true })) })
  heap.root.later = 3
  await assert.rejects(heap.flush({ timeoutMs: 5000 }), (error: HeapError) => error.code === 'ERR_ENGINE' && error.retryable)
  assert.deepEqual(errors, ['ERR_ENGINE'])
  assert.equal(heap.root.docs.length, 0)
  assert.equal(heap.root.n, 1)
  assert.equal(heap.root.later, undefined)
  heap.root.n = 5
  await heap.flush({ timeoutMs: 5000 })
  const other = await heapOn(relay, 'b')
  assert.equal(other.root.n, 5)
  await closeClean(other)
  await closeClean(heap)
  await rm(home, { recursive: true })
})
