// S1: `alloc(v, { near: ref })` puts an object into the segment of another, over the real engine and a relay in memory. After each
// commit every mirror that it touched is compared with what its engine holds.
import assert from 'node:assert/strict'
import { afterEach, test } from 'node:test'
import { Batch } from '../src/batch.js'
import { EDIT, KIND, TAG, Writer } from '../src/edge.js'
import { counter, set, snapshot, text, type Change, type Counter, type Heap, type HeapError, type LiveSet, type OpenOptions, type Ref, type Text } from '../src/index.js'
import { Mirror } from '../src/mirror.js'
import { applyPatches, compare, resetMirror } from '../src/patches.js'
import { RefTable } from '../src/refs.js'
import { encodeId, freshId } from '../src/uuid.js'
import { closeAll, closeClean, expecting, openOn } from './clean.js'
import { FakeRelay } from './fake-relay.js'

type Any = Record<string, any>

afterEach(closeAll)

/** The segment in a Ref's id. */
const segmentOf = (ref: Ref<any>): string => /^coheap:([\w-]{22})/.exec(ref.id)![1]!

test('S1: an object near another lies in its segment and can be used at once, here and elsewhere', async () => {
  const relay = new FakeRelay()
  const a = await openOn<Any>(relay, { initial: { head: null } })
  const first = a.alloc<Any>({ name: 'first' })
  const second = a.alloc<Any>({ name: 'second', back: first, deep: { list: [1, { x: 2 }] } }, { near: first })
  assert.match(second.id, /^coheap:[\w-]{22}#[\w-]{22}$/)
  assert.equal(segmentOf(second), segmentOf(first))
  assert.equal(second.value['name'], 'second')
  assert.equal(second.peek(), second.value)
  assert.equal(a.refOf(second.value), second)
  assert.equal(a.ref(second.id), second)
  first.value['next'] = second
  a.root['head'] = first
  assert.deepEqual(Object.keys(first.value), ['name', 'next'], 'what is near shows in no key')
  assert.deepEqual(snapshot(first.value), { name: 'first', next: second })
  second.value['deep'].list.push(3)
  const b = await openOn<Any>(relay)
  await b.reach(await a.flush())
  const theirs = b.ref<Any>(second.id)
  assert.equal(theirs.peek(), undefined)
  assert.throws(() => theirs.value, { code: 'ERR_NOT_LOADED' })
  assert.deepEqual(snapshot(await theirs.load()), { back: b.ref(first.id), deep: { list: [1, { x: 2 }, 3] }, name: 'second' })
  assert.equal(b.root['head'].value.next, theirs, 'loaded with its neighbour')
  theirs.value['deep'].list[1].x = 5
  await a.reach(await b.flush())
  assert.equal(second.value['deep'].list[1].x, 5)
  const inner = a.refOf(second.value['deep'].list)
  assert.equal((inner.value as unknown[]).length, 3)
})

test('S1: every kind of container can stand near another, also near the root and near what is near', async () => {
  const relay = new FakeRelay()
  const a = await openOn<Any>(relay)
  const root = a.refOf(a.root)
  const list = a.alloc<number[]>([1, 2], { near: root })
  const n = a.alloc<Counter>(counter(3), { near: list })
  const t = a.alloc<Text>(text('hi'), { near: n })
  const s = a.alloc<LiveSet<string>>(set(['x']), { near: t })
  list.value.push(3)
  n.value.add(2)
  t.value.insert(2, '!')
  s.value.add('y')
  const b = await openOn<Any>(relay)
  await b.reach(await a.flush())
  assert.deepEqual(Object.keys(b.root), [])
  assert.deepEqual([...await b.ref<number[]>(list.id).load()], [1, 2, 3])
  assert.equal(b.ref<Counter>(n.id).value.value, 5)
  assert.equal(String(b.ref<Text>(t.id).value), 'hi!')
  assert.deepEqual([...b.ref<LiveSet<string>>(s.id).value], ['x', 'y'])
  b.ref<Counter>(n.id).value.add(1)
  n.value.add(1)
  await b.flush()
  await a.sync()
  assert.equal(n.value.value, 7)
})

test('S1, S13: within a transaction it is there at once; one that throws leaves no trace', async () => {
  const relay = new FakeRelay()
  const a = await openOn<Any>(relay)
  const home = a.transact(() => {
    const home = a.alloc<Any>({ kind: 'home' })
    const inside = a.alloc<Any>({ kind: 'inside', n: counter() }, { near: home })
    assert.equal(inside.value['kind'], 'inside')
    assert.equal(a.refOf(inside.value), inside)
    inside.value['n'].add(2)
    home.value['inside'] = inside
    return home
  })
  assert.equal(home.value['inside'].value.n.value, 2)
  await a.flush()
  const entries = relay.log.length
  const before = snapshot(home.value)
  let undone: Ref<Any> | undefined
  let live: Any | undefined
  const boom = new Error('mine')
  assert.throws(() => a.transact(() => {
    undone = a.alloc<Any>({ gone: true }, { near: home })
    live = undone.value
    home.value['gone'] = undone
    throw boom
  }), error => error === boom)
  assert.deepEqual(snapshot(home.value), before)
  assert.throws(() => undone!.value, { code: 'ERR_DELETED' })
  assert.throws(() => { live!['x'] = 1 }, { code: 'ERR_DELETED' })
  // The handles that it took are free again on both sides.
  const next = a.alloc<Any>({ next: { deep: 1 } }, { near: home })
  next.value['next'].deep = 2
  await a.flush()
  assert.ok(relay.log.length > entries)
  const b = await openOn<Any>(relay)
  assert.deepEqual(snapshot(await b.ref<Any>(next.id).load()), { next: { deep: 2 } })
  await assert.rejects(b.ref<Any>(undone!.id).load(), { code: 'ERR_DELETED' })
})

test('S1: what near must be', async () => {
  const relay = new FakeRelay()
  const a = await openOn<Any>(relay, { initial: { box: {} } })
  const other = await openOn<Any>(relay)
  const ref = a.alloc<Any>({ x: 1 })
  assert.throws(() => a.alloc({}, { near: {} as Ref<Any> }), TypeError)
  assert.throws(() => a.alloc({}, { near: ref.value as Ref<Any> }), TypeError)
  assert.throws(() => a.alloc({}, { near: other.refOf(other.root) }), TypeError, 'a Ref of another heap')
  assert.throws(() => a.alloc(5 as never, { near: ref }), TypeError)
  assert.throws(() => a.alloc({ bad: () => 1 } as never, { near: ref }), TypeError)
  const box = a.refOf(a.root['box'])
  delete a.root['box']
  assert.throws(() => a.alloc({}, { near: box }), { code: 'ERR_DELETED' })
  await a.flush()
  const far = other.ref<Any>(ref.id)
  assert.throws(() => other.alloc({}, { near: far }), (error: HeapError) => error.code === 'ERR_NOT_LOADED' && (error.details['refs'] as unknown[])[0] === far)
  const made = await other.run(() => other.alloc<Any>({ y: 1 }, { near: far }))
  assert.equal(segmentOf(made), segmentOf(ref), 'heap.run loads what it is to lie near')
  await assert.rejects(other.run(() => other.alloc({}, { near: other.ref('coheap:' + 'A'.repeat(22)) })), { code: 'ERR_NOT_FOUND' })
})

test('S1: near a segment past the soft limit, an object gets a segment of its own', async () => {
  const relay = new FakeRelay()
  const a = await openOn<Any>(relay)
  const big = a.alloc<Any>({})
  for (let i = 0; i < 4; i++) a.transact(() => { for (let j = 0; j < 4; j++) big.value[`${i}.${j}`] = 'x'.repeat(240_000) })
  assert.equal(segmentOf(a.alloc({}, { near: big })), segmentOf(big), 'about 4 MiB')
  for (let i = 4; i < 9; i++) a.transact(() => { for (let j = 0; j < 4; j++) big.value[`${i}.${j}`] = 'x'.repeat(240_000) })
  const beyond = a.alloc<Any>({ made: true }, { near: big })
  assert.notEqual(segmentOf(beyond), segmentOf(big), 'over 8 MiB')
  assert.equal(beyond.id, `coheap:${segmentOf(beyond)}`)
  assert.equal(beyond.value['made'], true)
  await a.flush()
})

test('S1, S15: a refused commit takes its objects near others along, and those behind it are made anew', async () => {
  const relay = new FakeRelay()
  const a = await openOn<Any>(relay)
  const home = a.alloc<Any>({ kind: 'home' })
  await a.flush()
  expecting(a, { refused: 1, rebuilds: 1 })
  const refusals: unknown[] = []
  a.addEventListener('refused', refused => { refusals.push(refused) })
  relay.refuseNext = 32
  const lost = a.alloc<Any>({ lost: true }, { near: home })
  const lostLive = lost.value
  const waiting = a.flush()
  waiting.catch(() => {})
  const kept = a.alloc<Any>({ kept: { deep: [1] } }, { near: home })
  const keptLive = kept.value
  const heard: Change<Any>[] = []
  a.watch(kept, change => { heard.push(change) })
  keptLive['kept'].deep.push(2)
  await assert.rejects(waiting, { code: 'ERR_REFUSED' })
  await a.flush()
  assert.equal(refusals.length, 1)
  assert.throws(() => lost.value, { code: 'ERR_DELETED' })
  assert.deepEqual(snapshot(lostLive), { lost: true }, 'it shows its last values')
  assert.throws(() => { lostLive['x'] = 1 }, { code: 'ERR_DELETED' })
  assert.equal(kept.value, keptLive, 'the same object to its program')
  assert.deepEqual(snapshot(keptLive), { kept: { deep: [1, 2] } })
  assert.ok(heard.every(change => !change.detached))
  const b = await openOn<Any>(relay)
  assert.deepEqual(snapshot(await b.ref<Any>(kept.id).load()), { kept: { deep: [1, 2] } })
})

test('S1, S28: an object near another is watched like any other, through reconnects too', async () => {
  const relay = new FakeRelay()
  const a = await openOn<Any>(relay)
  const home = a.alloc<Any>({ kind: 'home' })
  const side = a.alloc<Any>({ n: 1, in: { x: 1 } }, { near: home })
  await a.flush()
  const b = await openOn<Any>(relay)
  const theirs = await b.ref<Any>(side.id).load()
  const heard: Change<Any>[] = []
  const first: Change<Any>[] = []
  b.watch(theirs, change => { heard.push(change) })
  b.watch(await b.ref<Any>(home.id).load(), change => { first.push(change) })
  side.value['n'] = 2
  side.value['in'].x = 5
  await b.reach(await a.flush())
  assert.deepEqual(heard[0]!.patches, [{ op: 'set', path: ['n'], value: 2, before: 1 }, { op: 'set', path: ['in', 'x'], value: 5, before: 1 }])
  assert.equal(first.length, 0, 'it is no part of the first object')
  relay.cut()
  side.value['n'] = 3
  await a.flush({ timeoutMs: 3000 })
  await b.sync({ timeoutMs: 3000 })
  assert.equal(theirs['n'], 3)
  assert.ok(heard.length >= 2 && heard.every(change => !change.detached))
})

test('S1, S24: an object near another comes back with its segment after eviction', async () => {
  const relay = new FakeRelay()
  const a = await openOn<Any>(relay)
  const ids = await (async () => {
    const home = a.alloc<Any>({ kind: 'home' })
    const side = a.alloc<Any>({ kind: 'side' }, { near: home })
    await a.flush()
    return [home.id, side.id]
  })()
  const side = a.ref<Any>(ids[1]!)
  const b = await openOn<Any>(relay)
  await b.load([b.ref<Any>(ids[0]!)])
  assert.ok(await emptied(b), 'the segment left memory')
  const theirs = b.ref<Any>(ids[1]!)
  assert.equal(theirs.peek(), undefined)
  assert.equal((await theirs.load())['kind'], 'side')
  assert.equal(b.refOf(theirs.value), theirs)
  assert.equal(side.value['kind'], 'side')
})

/** Evicts all that is not held, until only the root is here. */
async function emptied(heap: Heap<any>): Promise<boolean> {
  const { setFlagsFromString } = await import('node:v8')
  const { runInNewContext } = await import('node:vm')
  setFlagsFromString('--expose-gc')
  const gc = runInNewContext('gc') as () => void
  for (let i = 0; i < 50; i++) {
    await new Promise(resolve => setTimeout(resolve, 10))
    gc()
    if ((await heap.evict({ toBytes: 0 })).segments === 1) return true
  }
  return false
}

// Mirrors alone

const refs = new RefTable({ heapName: 'h', peekRef: () => undefined, valueOfRef: () => ({}), loadRef: async () => ({}) })
const makeRef = refs.of.bind(refs)
const rooted = (w = new Writer()): Writer => w.u8(EDIT.root).u8(KIND.map)

test('a mirror differs from an engine that has other objects near the first', () => {
  const [one, two] = [encodeId(freshId()), encodeId(freshId())]
  const mirror = new Mirror()
  applyPatches(mirror, rooted().u8(EDIT.near).idOf(one).u8(KIND.map).varint(1).u8(EDIT.set).varint(1).str('x').u8(TAG.true).slice(), makeRef)
  const dump = (id: string, value: number): Uint8Array => rooted().u8(EDIT.near).idOf(id).u8(KIND.map).varint(4).u8(EDIT.set).varint(4).str('x').u8(value).slice()
  assert.equal(compare(mirror, dump(one, TAG.true), makeRef), undefined, 'handles of a dump are its own')
  assert.match(compare(mirror, dump(one, TAG.false), makeRef)!, /x/)
  assert.match(compare(mirror, dump(two, TAG.true), makeRef)!, /only one of them/)
  assert.match(compare(mirror, rooted().slice(), makeRef)!, /only one of them/)
  resetMirror(mirror, dump(two, TAG.true), makeRef)
  assert.deepEqual([...mirror.near.keys()], [two], 'a reset forgets what is not said again')
})

test('undoing a batch undoes what it put near', () => {
  const mirror = new Mirror()
  applyPatches(mirror, rooted().slice(), makeRef)
  const batch = new Batch(true)
  const section = batch.section(mirror, () => ({ index: 0, id: '' }))
  const node = mirror.create(KIND.map)
  const id = encodeId(freshId())
  const start = section.values.length
  section.values.u8(TAG.container).u8(KIND.map).varint(0)
  mirror.place(id, node)
  section.near(id, { start, end: section.values.length, containers: true, weight: 0 })
  assert.deepEqual([...section.encode()], [...new Writer().u8(EDIT.near).idOf(id).u8(TAG.container).u8(KIND.map).varint(0).slice()])
  batch.rollback()
  assert.equal(mirror.near.size, 0)
  assert.equal(node.places, 0)
  assert.equal(mirror.nextHandle, 1)
})
