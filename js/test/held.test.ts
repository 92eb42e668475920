// Commits that are held until the module for history is there, and what becomes of them when it is not, or when the heap ends.
import assert from 'node:assert/strict'
import { cp, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, afterEach, test } from 'node:test'
import { pathToFileURL } from 'node:url'
import type { Heap, HeapError, open as Open, Ref, snapshot as Snapshot } from '../src/index.js'
import { closeAll, expecting, keep } from './clean.js'
import { FakeRelay } from './fake-relay.js'

type Any = Record<string, any>
const folders: string[] = []
afterEach(closeAll)
after(async () => { for (const folder of folders) await rm(folder, { recursive: true }) })

/** The package as it is, but for the one file that is fetched. */
async function packageWith(wasmFull: string | undefined): Promise<typeof Open> {
  return (await packageAt(wasmFull)).open
}

async function packageAt(wasmFull: string | undefined): Promise<{ open: typeof Open; snapshot: typeof Snapshot; home: string }> {
  const home = await mkdtemp(join(tmpdir(), 'coheap-'))
  folders.push(home)
  await cp(new URL('../src/', import.meta.url), join(home, 'src'), { recursive: true })
  await writeFile(join(home, 'package.json'), '{"type":"module"}')
  if (wasmFull === undefined) await rm(join(home, 'src/wasm-full.js'))
  else await writeFile(join(home, 'src/wasm-full.js'), wasmFull)
  const { open, snapshot } = await import(pathToFileURL(join(home, 'src/index.js')).href) as { open: typeof Open; snapshot: typeof Snapshot }
  return { open, snapshot, home }
}

async function heapOf(open: typeof Open, relay: FakeRelay, closing = keep): Promise<{ heap: Heap<Any>; errors: HeapError[] }> {
  const errors: HeapError[] = []
  const heap = closing(await open<Any>('ws://test/heap/h', { webSocket: relay.socket, initial: { n: 0 } }))
  heap.addEventListener('error', error => { errors.push(error) })
  await heap.flush()
  return { heap, errors }
}

const turn = (): Promise<void> => new Promise(resolve => setTimeout(resolve, 0))
const code = (expected: string) => (error: HeapError): boolean => error.code === expected

test('who watches is told of held commits, and that they were undone', async () => {
  const slow = "export const prepare = () => new Promise((_, no) => setTimeout(() => no(new Error('gone')), 100)); export const instantiate = () => {}"
  const { heap, errors } = await heapOf(await packageWith(slow), new FakeRelay())
  const seen: unknown[] = []
  const patches: unknown[] = []
  heap.watch(() => heap.root['n'] as number, n => { seen.push(n) })
  heap.watch(heap.root, change => { patches.push(change.patches.map(patch => patch.op)) })
  heap.transact(() => { heap.root['n'] = 1; heap.root['doc'] = heap.alloc({ a: 1 }, { history: true }) })
  await turn()
  heap.root['n'] = 2
  await turn()
  assert.deepEqual([heap.status.unsaved, errors.length, seen], [2, 0, [1, 2]])
  await assert.rejects(heap.flush({ timeoutMs: 5000 }), code('ERR_ENGINE'))
  await turn()
  assert.equal(heap.root['n'], 0)
  assert.equal(seen.at(-1), 0)
  assert.deepEqual(patches.at(-1), ['delete', 'set'])
  assert.deepEqual([heap.status.unsaved, heap.stats().bytes.queued], [0, 0])
  heap.root['n'] = 3
  await heap.flush({ timeoutMs: 5000 })
})

test('a heap that ends while commits are held fails who waits for them', async () => {
  const open = await packageWith("export const prepare = () => new Promise(() => {}); export const instantiate = () => { throw new Error('never') }")
  const { heap } = await heapOf(open, new FakeRelay(), opened => opened)
  heap.alloc({ a: 1 }, { history: true })
  heap.root['n'] = 1
  const waits = [heap.flush(), heap.sync(), heap.version()]
  await turn()
  assert.equal(heap.status.unsaved, 1)
  assert.ok(heap.status.unsavedMs >= 0)
  assert.equal(heap.refOf(heap.root), heap.refOf(heap.root), 'what is not held has its id')
  await assert.rejects(heap.close({ timeoutMs: 50 }), code('ERR_UNSAVED'))
  for (const wait of waits) await assert.rejects(wait, code('ERR_CLOSED'))
})

test('a module that cannot be started undoes what needs it, and the heap goes on', async () => {
  const relay = new FakeRelay()
  const open = await packageWith("export const prepare = async () => {}; export const instantiate = () => { throw new RangeError('no memory for it') }")
  const { heap, errors } = await heapOf(open, relay)
  const make = (): Ref<object> => heap.transact(() => { heap.root['n'] = 9; return heap.alloc({ a: 1 }, { history: true }) })
  make()
  await assert.rejects(heap.flush({ timeoutMs: 5000 }), code('ERR_ENGINE'))
  // The second time the module is there at once, and the same is thrown where it is needed.
  assert.throws(make, (error: HeapError) => error.code === 'ERR_ENGINE' && error.retryable && (error.cause as Error).name === 'RangeError')
  assert.equal(heap.root['n'], 0)
  assert.equal(errors.length, 1)
  heap.root['n'] = 1
  await heap.flush({ timeoutMs: 5000 })
  const other = keep(await open<Any>('ws://test/heap/h', { webSocket: relay.socket }))
  assert.equal(other.root['n'], 1)
  assert.equal(heap.status.connection, 'online')
})

test('near and history together are refused: the segment is what it is', async () => {
  const { heap } = await heapOf(await packageWith(undefined), new FakeRelay())
  assert.throws(() => heap.alloc({}, { near: heap.refOf(heap.root), history: true }), TypeError)
})

test('S2, S15: what is held behind an object that turned out to have content of old is undone: it would name others', async () => {
  const relay = new FakeRelay()
  const original = new URL('../src/wasm-full.js', import.meta.url).href
  const { open, snapshot, home } = await packageAt(`export { instantiate } from ${JSON.stringify(original)}
export let arrive
const arrival = new Promise(resolve => { arrive = resolve })
export const prepare = () => arrival
`)
  // A list is refused, and what was put into it stays in the segment, unseen.
  const { heap: before } = await heapOf(open, relay)
  expecting(before, { refused: 1, rebuilds: 1 })
  relay.refuseNext = 36
  before.transact(() => { before.root['list'] = [] })
  before.root['list'].push({ old: 1 })
  await assert.rejects(before.flush(), code('ERR_REFUSED'))
  await before.flush()
  const { heap, errors } = await heapOf(open, relay)
  assert.deepEqual(snapshot(heap.root), { n: 0 })
  // The list is made again, and the next commits speak of an object in it by the number that it has here.
  const doc = heap.alloc({ a: 1 }, { history: true })
  heap.transact(() => { heap.root['list'] = [] })
  heap.transact(() => { heap.root['list'].push({ new: 1 }) })
  heap.transact(() => { heap.root['list'][0]['new'] = 2 })
  assert.deepEqual([heap.status.unsaved, snapshot(heap.root)], [4, { list: [{ new: 2 }], n: 0 }])
  const flushed = heap.flush({ timeoutMs: 5000 }).catch((error: HeapError) => error.code)
  const module = await import(pathToFileURL(join(home, 'src/wasm-full.js')).href) as { arrive: () => void }
  module.arrive()
  assert.deepEqual([await flushed, snapshot(heap.root)], ['ERR_CONFLICT', { list: [{ old: 1 }], n: 0 }])
  assert.deepEqual(errors.map(error => error.code), ['ERR_CONFLICT'])
  heap.root['list'].push({ new: 3 })
  await heap.flush({ timeoutMs: 5000 })
  await before.sync()
  assert.deepEqual(snapshot(before.root), { list: [{ old: 1 }, { new: 3 }], n: 0 })
  assert.deepEqual(snapshot(await heap.ref<Any>(doc.id).load()), { a: 1 })
})
