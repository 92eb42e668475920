// S2's last sentence, over the real engine and a relay in memory: of kinds that differ under one key at once one wins, and the
// programs that wrote another one hear what they lost, by one `error` event each.
import assert from 'node:assert/strict'
import { afterEach, test } from 'node:test'
import { counter, open, set, snapshot, text, type Heap, type HeapError, type OpenOptions } from '../src/index.js'
import { closeAll, closeClean, expecting, keep } from './clean.js'
import { FakeRelay } from './fake-relay.js'

type Any = Record<string, any>

afterEach(closeAll)

/** A heap whose `error` events the test looks at. */
async function openOn(relay: FakeRelay, options: OpenOptions<Any> = {}): Promise<{ heap: Heap<Any>; root: Any; errors: HeapError[] }> {
  const heap = keep(await open<Any>('ws://test/heap/h', { webSocket: relay.socket, timeoutMs: 3000, ...options }))
  const errors: HeapError[] = []
  heap.addEventListener('error', error => { errors.push(error) })
  return { heap, root: heap.root, errors }
}

/** All write without a connection, then all meet. */
async function apart(relay: FakeRelay, all: readonly { heap: Heap<Any> }[], write: () => void): Promise<void> {
  relay.down = true
  relay.cut()
  write()
  relay.down = false
  for (const { heap } of all) await heap.flush({ timeoutMs: 5000 })
  for (const { heap } of all) await heap.sync({ timeoutMs: 5000 })
}

test('S2: of kinds that differ, who wrote the loser hears what it held, once', async () => {
  const winners = new Set<string>()
  for (let i = 0; i < 40 && winners.size < 2; i++) {
    const relay = new FakeRelay()
    const [a, b, c] = [await openOn(relay), await openOn(relay), await openOn(relay)]
    a.root['box'] = { in: {} }
    await a.heap.flush()
    await b.heap.sync()
    const made: Record<string, unknown> = {}
    await apart(relay, [a, b, c], () => {
      a.root['box'].in.k ??= {}
      a.root['box'].in.k.deep = { when: new Date(5), n: counter(2), s: set(['y', 'x']) }
      b.root['box'].in.k ??= []
      b.root['box'].in.k.push(1, text('two'))
      made['a'] = snapshot(a.root['box'].in.k)
      made['b'] = snapshot(b.root['box'].in.k)
    })
    const kept = a.root['box'].in.k
    assert.deepEqual(snapshot(kept), snapshot(b.root['box'].in.k))
    assert.deepEqual(c.errors, [], 'one that looked on')
    const [winner, loser, wrote, kind, stands] = Array.isArray(kept) ? [b, a, 'a', 'map', 'list'] as const : [a, b, 'b', 'list', 'map'] as const
    winners.add(stands)
    assert.deepEqual(winner.errors, [])
    assert.equal(loser.errors.length, 1)
    const [error] = loser.errors
    assert.equal(error!.code, 'ERR_CONFLICT')
    assert.match(error!.message, /^box\.in\.k: /)
    assert.deepEqual(error!.details, { ref: loser.heap.refOf(loser.root), path: ['box', 'in', 'k'], kind, kept: stands, lost: made[wrote] })
    relay.cut()
    await loser.heap.sync({ timeoutMs: 5000 })
    assert.equal(loser.errors.length, 1)
    for (const { heap } of [a, b, c]) await closeClean(heap)
  }
  assert.equal(winners.size, 2, 'sometimes one wins, sometimes the other')
})

test('S2: a loss in an object near another names that object', async () => {
  const relay = new FakeRelay()
  const [a, b] = [await openOn(relay), await openOn(relay)]
  const near = a.heap.alloc<Any>({ in: {} }, { near: a.heap.refOf(a.root) })
  await b.heap.reach(await a.heap.flush())
  const theirs = b.heap.ref<Any>(near.id)
  await apart(relay, [a, b], () => {
    near.value['in'].k = set(['x'])
    theirs.value['in'].k = counter(1)
  })
  const errors = [...a.errors, ...b.errors]
  assert.equal(errors.length, 1)
  const { ref, path, kind, lost } = errors[0]!.details as { ref: { id: string }; path: string[]; kind: string; lost: unknown }
  assert.equal(ref.id, near.id)
  assert.deepEqual(path, ['in', 'k'])
  assert.deepEqual(lost, kind === 'set' ? ['x'] : 1)
})

test('S2, S3, S4: nothing is told of what merged, of scalars, of defaults, and of what was written over on purpose', async () => {
  const relay = new FakeRelay()
  const [a, b] = [await openOn(relay), await openOn(relay)]
  await apart(relay, [a, b], () => {
    a.root['same'] ??= {}
    b.root['same'] ??= {}
    a.root['scalar'] = {}
    b.root['scalar'] = 1
    a.root['later'] = {}
  })
  b.root['later'] = []
  delete b.root['same']
  b.root['same'] = [1]
  await a.heap.reach(await b.heap.flush())
  const c = await openOn(relay, { initial: { same: {}, fresh: {} } })
  const d = await openOn(relay, { initial: { same: {}, fresh: [] } })
  await c.heap.flush()
  await d.heap.flush()
  for (const each of [a, b, c, d]) {
    await each.heap.sync()
    assert.deepEqual(each.errors, [])
  }
})

test('S2, S15: what was refused is no loss', async () => {
  const relay = new FakeRelay()
  const [a, b] = [await openOn(relay), await openOn(relay)]
  expecting(a.heap, { refused: 1, rebuilds: 1 })
  relay.refuseNext = 32
  a.root['k'] = { x: 1 }
  await assert.rejects(a.heap.flush(), { code: 'ERR_REFUSED' })
  b.root['k'] = [1]
  await a.heap.reach(await b.heap.flush())
  assert.deepEqual(snapshot(a.root), { k: [1] })
  assert.deepEqual(a.errors, [])
})

test('D4: what a relay that lost part of its log cannot put together with its own is told, with a copy', async () => {
  const relay = new FakeRelay()
  const a = await openOn(relay)
  a.root['kept'] = 1
  await a.heap.flush()
  a.root['gone'] = { deep: [1, 2], n: counter(3) }
  await a.heap.flush()
  const had = snapshot(a.root)
  relay.log.splice(1)
  relay.conflictNext = true
  relay.cut()
  await a.heap.sync({ timeoutMs: 5000 })
  assert.deepEqual(snapshot(a.root), { kept: 1 })
  assert.equal(a.errors.length, 1)
  assert.equal(a.errors[0]!.code, 'ERR_CONFLICT')
  assert.deepEqual(a.errors[0]!.details, { ref: a.heap.refOf(a.root), lost: had })
})
