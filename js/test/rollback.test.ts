// A throw inside `transact` leaves no trace, in mirror, batch, segment or wire (S13, P3); and listeners run once, after.
import assert from 'node:assert/strict'
import { cp, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, afterEach, test } from 'node:test'
import { pathToFileURL } from 'node:url'
import { counter, move, set, snapshot, text, type Heap, type open as Open, type Ref } from '../src/index.js'
import { closeAll, closeClean, keep, openOn } from './clean.js'
import { FakeRelay } from './fake-relay.js'

type Any = Record<string, any>

const folders: string[] = []
afterEach(closeAll)
after(async () => { for (const folder of folders) await rm(folder, { recursive: true }) })

const turn = (): Promise<void> => new Promise(resolve => setTimeout(resolve, 5))

function fill(heap: Heap<Any>): Ref<Any> {
  heap.root.list = [{ id: 'a' }, { id: 'b' }, 3]
  heap.root.n = counter(1)
  heap.root.t = text('a😀b')
  heap.root.s = set(['p', 'q'])
  heap.root.map = { in: { deep: [1] } }
  return (heap.root.ref = heap.alloc<Any>({ list: [1, 2], n: counter(5) }))
}

/** Touches everything there is, in both segments, and makes more. */
function havoc(heap: Heap<Any>, ref: Ref<Any>): void {
  const { root } = heap
  root.list.splice(0, 1, { id: 'c' }, [4, [5]])
  move(root.list, 0, 2)
  root.list[1] = { put: true }
  root.list.length = 2
  root.n.add(7)
  root.t.splice(1, 2, 'xyz')
  root.t.update('something else')
  root.s.add('r')
  root.s.delete('p')
  root.map.in.deep.push({ made: counter(2) })
  root.map.in.deep[1].made.add(3)
  delete root.map.in
  root.map = { in: 'its place' }
  root.fresh = { a: text('b'), c: set([1]) }
  root.fresh.a.insert(0, 'b')
  ref.value.list.shift()
  ref.value.n.add(-1)
  const made = heap.alloc<Any>({ gone: [counter(1)] })
  made.value.gone[0].add(1)
  root.made = made
  heap.alloc({ gone: true }, { near: ref })
}

/** What a heap shows, and every number that a trace would change. */
function state(heap: Heap<Any>, ref: Ref<Any>): unknown {
  const { commits, deltasOut } = heap.stats()
  return { root: snapshot(heap.root), other: snapshot(ref.value), commits, deltasOut, segments: heap.status.segments, unsaved: heap.status.unsaved }
}

test('S13: a throw leaves nothing in mirrors, segments and on the wire, and what comes after is as if it had not been', async () => {
  const relay = new FakeRelay()
  const heap = await openOn<Any>(relay)
  const ref = fill(heap)
  await heap.flush()
  await turn()
  const [entries, messages] = [relay.log.length, relay.messages]
  const held = [heap.root.list[0], heap.root.map.in, heap.root.map.in.deep]
  const before = state(heap, ref)
  let told = 0
  heap.watch(heap.root, () => { told += 1 })
  heap.watch(ref, () => { told += 1 })
  heap.watch(() => JSON.stringify(heap.root), () => { told += 1 })
  const own = new Error('the program\'s own')
  for (let i = 0; i < 3; i++) assert.throws(() => heap.transact(() => { havoc(heap, ref); throw own }), (error: unknown) => error === own)
  assert.throws(() => heap.transact((() => { havoc(heap, ref); return Promise.resolve() }) as never), TypeError)
  assert.throws(() => heap.transact(() => { havoc(heap, ref); heap.ref('coheap:AZqGQ1cFd9eP0P1u2Q3R4Q').value }), { code: 'ERR_NOT_LOADED' })
  assert.deepEqual(state(heap, ref), before)
  assert.deepEqual([heap.root.list[0], heap.root.map.in, heap.root.map.in.deep], held)
  await turn()
  assert.deepEqual([told, relay.log.length, relay.messages], [0, entries, messages])
  // The next commit takes the handles that were given back, and everybody understands it.
  heap.transact(() => havoc(heap, ref))
  await heap.flush()
  assert.equal(relay.log.length, entries + 1)
  assert.equal(told, 3)
  const other = await openOn<Any>(relay)
  await other.ref(ref.id).load()
  assert.deepEqual(snapshot(other.root), snapshot(heap.root))
  assert.deepEqual(snapshot(other.ref<Any>(ref.id).value), snapshot(ref.value))
  await closeClean(other)
  await closeClean(heap)
})

test('S13: a throw within takes back what was within, one around it takes back all', async () => {
  const relay = new FakeRelay()
  const heap = await openOn<Any>(relay)
  const ref = fill(heap)
  await heap.flush()
  const entries = relay.log.length
  const before = state(heap, ref)
  const inner = (): void => { assert.throws(() => heap.transact(() => { havoc(heap, ref); throw new Error('inner') }), /inner/) }
  assert.throws(() => heap.transact(() => {
    inner()
    heap.root.n.add(1)
    heap.transact(() => { heap.root.list.push('kept for now'); heap.alloc({}) })
    inner()
    throw new Error('outer')
  }), /outer/)
  assert.deepEqual(state(heap, ref), before)
  heap.transact(() => {
    heap.root.n.add(1)
    inner()
    heap.transact(() => { heap.root.list.push('stands') })
    heap.transact(() => { inner(); ref.value.n.add(1) })
  })
  await heap.flush()
  assert.equal(relay.log.length, entries + 1)
  const other = await openOn<Any>(relay)
  assert.deepEqual(snapshot(other.root), snapshot(heap.root))
  assert.equal(other.root.n.value, 2)
  assert.equal(other.root.list.at(-1), 'stands')
  assert.equal((await other.ref<Any>(ref.id).load()).n.value, 6)
  await closeClean(other)
  await closeClean(heap)
})

test('S13: a throw while commits are held for the full module leaves those as they were', async () => {
  const home = await mkdtemp(join(tmpdir(), 'coheap-'))
  folders.push(home)
  await cp(new URL('../src/', import.meta.url), join(home, 'src'), { recursive: true })
  await writeFile(join(home, 'package.json'), '{"type":"module"}')
  const original = JSON.stringify(new URL('../src/wasm-full.js', import.meta.url).href)
  await writeFile(join(home, 'src/wasm-full.js'), `export { instantiate } from ${original}
export const prepare = () => new Promise(resolve => { globalThis.fullModuleArrives = resolve })`)
  const copy = (await import(pathToFileURL(join(home, 'src/index.js')).href)) as typeof import('../src/index.js')
  const relay = new FakeRelay()
  const heap = keep(await (copy.open as typeof Open)<Any>('ws://test/heap/h', { webSocket: relay.socket, initial: { n: copy.counter(), list: [] } }))
  await heap.flush()
  const entries = relay.log.length
  heap.transact(() => { heap.root.n.add(1); heap.root.doc = heap.alloc({ a: 1 }, { history: true }) })
  heap.transact(() => { heap.root.list.push('held', { made: 1 }); heap.root.doc.value.a = 2 })
  const before = copy.snapshot(heap.root)
  const { unsaved, segments } = heap.status
  for (let i = 0; i < 2; i++) {
    assert.throws(() => heap.transact(() => {
      heap.root.n.add(5)
      heap.root.list.push({ gone: true })
      heap.root.list[1].made = 2
      heap.root.doc.value.a = 3
      heap.root.other = heap.alloc({ gone: 1 }, { history: true })
      throw new Error('own')
    }), /own/)
  }
  assert.deepEqual(copy.snapshot(heap.root), before)
  assert.equal(heap.root.doc.value.a, 2)
  assert.deepEqual([heap.status.unsaved, heap.status.segments], [unsaved, segments])
  heap.root.list[1].after = true
  const host = globalThis as unknown as { fullModuleArrives?: () => void }
  while (host.fullModuleArrives === undefined) await turn()
  host.fullModuleArrives()
  await heap.flush({ timeoutMs: 5000 })
  assert.equal(relay.log.length, entries + 3)
  const other = keep(await (copy.open as typeof Open)<Any>('ws://test/heap/h', { webSocket: relay.socket }))
  assert.deepEqual(copy.snapshot(other.root), copy.snapshot(heap.root))
  assert.deepEqual({ ...copy.snapshot(other.root.list[1]) as object }, { after: true, made: 1 })
  assert.equal(other.root.n.value, 1)
})

test('P3: listeners run once, after all of a commit, also where only some of its segments are here', async () => {
  const relay = new FakeRelay()
  const writer = await openOn<Any>(relay)
  const [a, b, c] = [writer.alloc<Any>({ n: 0 }), writer.alloc<Any>({ n: 0 }), writer.alloc<Any>({ n: 0 })]
  writer.root.n = 0
  writer.root.refs = [a, b, c]
  await writer.flush()
  const reader = await openOn<Any>(relay)
  const [ra, rb, rc] = [a, b, c].map(ref => reader.ref<Any>(ref.id)) as [Ref<Any>, Ref<Any>, Ref<Any>]
  await reader.load([ra, rb])
  const seen: string[] = []
  const now = (): string => [reader.root.n, ra.value.n, rb.peek()?.n ?? '-', rc.peek()?.n ?? '-'].join()
  reader.watch(reader.root, change => { seen.push(`root ${change.patches.length} ${now()}`) })
  reader.watch(ra, change => { seen.push(`a ${change.patches.length} ${now()}`) })
  reader.watch(() => [reader.root.n, ra.value.n].join(), value => { seen.push(`both ${value} ${now()}`) })
  const own: string[] = []
  writer.watch(writer.root, change => { own.push(`root ${change.patches.length} ${a.value.n}`) })
  writer.watch(c, change => { own.push(`c ${change.patches.length} ${writer.root.n}`) })
  for (const n of [1, 2]) {
    writer.transact(() => { for (const ref of [c, b, a]) ref.value.n = n; writer.root.n = n })
    await reader.reach(await writer.flush())
    await turn()
    const shown = [n, n, n, '-'].join()
    assert.deepEqual(seen.splice(0).sort(), [`a 1 ${shown}`, `both ${n},${n} ${shown}`, `root 1 ${shown}`])
    assert.deepEqual(own.splice(0).sort(), [`c 1 ${n}`, `root 1 ${n}`])
  }
  // Of a commit none of whose segments is watched nobody hears; what it wrote is there when it is loaded.
  writer.transact(() => { b.value.n = 3; c.value.n = 3 })
  await reader.reach(await writer.flush())
  await turn()
  assert.deepEqual(seen, [])
  assert.equal((await rc.load()).n, 3)
  assert.equal(rb.value.n, 3)
  await closeClean(reader)
  await closeClean(writer)
})
