// Commits that are held until the module for history is there, and what becomes of them when it is not, or when the heap ends.
import assert from 'node:assert/strict'
import { cp, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, afterEach, test } from 'node:test'
import { pathToFileURL } from 'node:url'
import type { Heap, HeapError, open as Open, Ref } from '../src/index.js'
import { closeAll, keep } from './clean.js'
import { FakeRelay } from './fake-relay.js'

type Any = Record<string, any>
const folders: string[] = []
afterEach(closeAll)
after(async () => { for (const folder of folders) await rm(folder, { recursive: true }) })

/** The package as it is, but for the one file that is fetched. */
async function packageWith(wasmFull: string | undefined): Promise<typeof Open> {
  const home = await mkdtemp(join(tmpdir(), 'coheap-'))
  folders.push(home)
  await cp(new URL('../src/', import.meta.url), join(home, 'src'), { recursive: true })
  await writeFile(join(home, 'package.json'), '{"type":"module"}')
  if (wasmFull === undefined) await rm(join(home, 'src/wasm-full.js'))
  else await writeFile(join(home, 'src/wasm-full.js'), wasmFull)
  return ((await import(pathToFileURL(join(home, 'src/index.js')).href)) as { open: typeof Open }).open
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
