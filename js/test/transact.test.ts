// What a transaction, a turn and a write that is too large undo, and what they leave (S13, S14, S16).
import assert from 'node:assert/strict'
import { afterEach, test } from 'node:test'
import { counter, set, snapshot, text, type HeapError } from '../src/index.js'
import { closeAll, closeClean, openOn } from './clean.js'
import { FakeRelay } from './fake-relay.js'

type Any = Record<string, any>

afterEach(closeAll)

const code = (expected: string) => (error: HeapError): boolean => error.code === expected

test('S13: what a transaction within another throws undoes its own writes and no others', async () => {
  const relay = new FakeRelay()
  const heap = await openOn<Any>(relay)
  heap.root.list = [1]
  heap.root.n = counter(1)
  heap.root.t = text('ab')
  heap.root.s = set(['p'])
  await heap.flush()
  const commits = relay.log.length
  const seen: number[] = []
  heap.watch(heap.root, change => { seen.push(change.patches.length) })
  heap.transact(() => {
    heap.root.a = 1
    heap.root.list.push(2)
    heap.root.t.insert(2, 'c')
    heap.root.n.add(1)
    const before = snapshot(heap.root)
    assert.throws(() => heap.transact(() => {
      heap.root.a = 2
      heap.root.b = { deep: [1] }
      heap.root.list.push(3)
      heap.root.t.insert(3, 'd')
      heap.root.n.add(5)
      heap.root.s.add('q')
      heap.alloc({ gone: true })
      throw new Error('inner')
    }), /inner/)
    assert.deepEqual(snapshot(heap.root), before)
    heap.root.c = { deep: [3] }
    heap.root.list.push(4)
    heap.root.t.insert(3, 'e')
  })
  await heap.flush()
  assert.equal(relay.log.length, commits + 1)
  assert.equal(relay.log.at(-1)!.parts.length, 1, 'the segment of the inner transaction is not in the commit')
  const wanted = { a: 1, c: { deep: [3] }, list: [1, 2, 4], n: 2, s: ['p'], t: 'abce' }
  assert.deepEqual({ ...snapshot(heap.root) }, wanted)
  assert.equal(seen.length, 1)
  const other = await openOn<Any>(relay)
  assert.deepEqual({ ...snapshot(other.root) }, wanted)
  await closeClean(other)
  await closeClean(heap)
})

test('S14: outside transact a large write leaves what was written before it in the turn', async () => {
  const relay = new FakeRelay()
  const heap = await openOn<Any>(relay)
  const half = (fill: string): string[] => Array.from({ length: 3 }, () => fill.repeat(230_000))
  heap.root.small = 1
  heap.root.x = { parts: half('x') }
  heap.root.y = { parts: half('y') }
  heap.root.after = 2
  assert.throws(() => { heap.root.z = { parts: [...half('z'), ...half('z')] } }, code('ERR_TOO_LARGE'))
  heap.root.last = 3
  await heap.flush()
  const other = await openOn<Any>(relay)
  assert.deepEqual(Object.keys(other.root), ['after', 'last', 'small', 'x', 'y'])
  assert.equal(other.root.x.parts[2].length, 230_000)
  assert.equal(other.root.y.parts[0][0], 'y')
  await closeClean(other)
  await closeClean(heap)
})

test('S14: outside transact one call that writes much becomes several commits, in order', async () => {
  const relay = new FakeRelay()
  const heap = await openOn<Any>(relay)
  heap.root.list = ['first', 'last']
  await heap.flush()
  const commits = relay.log.length
  heap.root.list.splice(1, 0, ...Array.from({ length: 700 }, (_, i) => `${i}-${'v'.repeat(1000)}`))
  heap.root.t = text('')
  heap.root.t.insert(0, 'ä'.repeat(60_000))
  await heap.flush()
  assert.ok(relay.log.length - commits >= 3, `${relay.log.length - commits} commits`)
  const other = await openOn<Any>(relay)
  assert.equal(other.root.list.length, 702)
  assert.deepEqual([0, 1, 2, 700, 701].map(i => String(other.root.list[i]).split('-')[0]), ['first', '0', '1', '699', 'last'])
  assert.equal(other.root.t.length, 60_000)
  await closeClean(other)
  await closeClean(heap)
})

test('S14: a transaction that is too large throws at its end and leaves nothing', async () => {
  const relay = new FakeRelay()
  const heap = await openOn<Any>(relay)
  heap.root.before = 1
  assert.throws(() => heap.transact(() => { for (let i = 0; i < 6; i++) heap.root[`k${i}`] = 'x'.repeat(200_000) }), code('ERR_TOO_LARGE'))
  assert.deepEqual(Object.keys(heap.root), ['before'])
  await heap.flush()
  assert.equal(relay.log.length, 1)
  await closeClean(heap)
})

test('S16: alloc beyond the unsaved limit throws and leaves no segment', async () => {
  const relay = new FakeRelay()
  const heap = await openOn<Any>(relay, { maxUnsaved: 20_000 })
  relay.silent = true
  heap.root.big = 'x'.repeat(30_000)
  await Promise.resolve()
  const { segments } = heap.status
  for (let i = 0; i < 10; i++) assert.throws(() => heap.alloc({ i }), code('ERR_UNSAVED_LIMIT'))
  assert.equal(heap.status.segments, segments)
  relay.silent = false
  relay.cut()
  await heap.flush({ timeoutMs: 5000 })
  assert.equal(heap.alloc({ i: 1 }).value.i, 1)
  await closeClean(heap)
})
