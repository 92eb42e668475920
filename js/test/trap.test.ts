// A trap in wasm: the heap goes on in a fresh instance, and the program sees one event. What was shown stays shown, what was
// written is there, and what traps again and again is left aside (P8, R12).
import assert from 'node:assert/strict'
import { afterEach, beforeEach, test } from 'node:test'
import { counter, open, set, snapshot, text, type Heap, type HeapError, type Ref } from '../src/index.js'
import { OP, Reader } from '../src/edge.js'
import { closeAll, closeClean, expecting, keep, openOn } from './clean.js'
import { FakeRelay } from './fake-relay.js'
import { holds, Traps, type RiggedCall } from './traps.js'

type Any = Record<string, any>

let traps: Traps
beforeEach(() => { traps = new Traps() })
afterEach(async () => {
  traps.end()
  await closeAll()
  assert.equal(traps.calledAfter, 0, 'an instance that trapped is called again')
})

const code = (expected: string) => (error: HeapError): boolean => error.code === expected
const turn = (): Promise<void> => new Promise(resolve => setTimeout(resolve, 5))

/** The next call of an operation traps, once. */
function trapNext(op: number, when: 'before' | 'after' = 'after', of: (call: RiggedCall) => boolean = () => true): void {
  traps.plan = call => {
    if (call.op !== op || !of(call)) return undefined
    traps.plan = () => undefined
    return when
  }
}

/** A heap whose events are gathered instead of failing the test. */
async function opening(relay: FakeRelay, options: object = {}, closing = keep): Promise<{ heap: Heap<Any>; errors: HeapError[]; quarantined: string[] }> {
  const heap = closing(await open<Any>('ws://test/heap/h', { webSocket: relay.socket, timeoutMs: 3000, ...options }))
  const errors: HeapError[] = []
  const quarantined: string[] = []
  heap.addEventListener('error', error => { errors.push(error) })
  heap.addEventListener('quarantine', ({ ref }) => { quarantined.push(ref.id) })
  return { heap, errors, quarantined }
}

/** Of everything a segment may hold. */
function fill(heap: Heap<Any>): Ref<Any> {
  heap.root.n = 1
  heap.root.map = { deep: { x: [1, { y: 2 }] } }
  heap.root.list = [{ id: 'a' }, { id: 'b' }]
  heap.root.visits = counter(3)
  heap.root.text = text('hällo')
  heap.root.tags = set(['p'])
  const near = heap.alloc({ near: true }, { near: heap.refOf(heap.root) })
  heap.root.near = near
  const ref = heap.alloc<Any>({ own: { k: 1 } })
  heap.root.ref = ref
  return ref
}

for (const when of ['before', 'after'] as const) {
  test(`a trap ${when} a message: one event, the same objects, and everything goes on`, async () => {
    const relay = new FakeRelay()
    const { heap, errors } = await opening(relay)
    const other = await openOn<Any>(relay)
    const ref = fill(heap)
    await other.reach(await heap.flush())
    const [deep, second, visits] = [heap.root.map.deep, heap.root.list[1], heap.root.visits]
    const before = snapshot(heap.root)
    const seen: unknown[] = []
    heap.watch(heap.root, change => { seen.push(change.patches.map(patch => patch.op)) })
    expecting(heap, { rebuilds: 1 })
    trapNext(OP.receive, when, ({ instance }) => instance === 0)
    other.transact(() => {
      other.root.list.unshift({ id: 'z' })
      other.root.visits.add(4)
      other.root.text.insert(5, '!')
    })
    await other.flush()
    assert.equal(snapshot(heap.root), before, 'nothing is seen of what trapped')
    await heap.sync({ timeoutMs: 3000 })
    assert.equal(errors.length, 1)
    assert.deepEqual([errors[0]!.code, errors[0]!.details['during']], ['ERR_ENGINE', 'receive'])
    assert.ok(errors[0]!.cause instanceof WebAssembly.RuntimeError)
    assert.equal(heap.stats().rebuilds, 1)
    assert.equal(seen.length, 1, 'one commit, one change')
    // What the program held is what it was.
    assert.equal(heap.root.map.deep, deep)
    assert.equal(heap.root.list[2], second)
    assert.equal(heap.root.visits, visits)
    assert.equal(visits.value, 7)
    second.id = 'B'
    deep.x[1].y = 3
    visits.add(1)
    ref.value.own.k = 2
    heap.root.near.value.near = 'still'
    await other.reach(await heap.flush())
    assert.deepEqual(snapshot(other.root), snapshot(heap.root))
    assert.deepEqual({ ...snapshot(other.root.list[2]) }, { id: 'B' })
    assert.equal(other.root.visits.value, 8)
    assert.deepEqual(snapshot(await other.ref<Any>(ref.id).load()), { own: { k: 2 } })
    assert.equal(heap.status.connection, 'online')
    await closeClean(heap)
    await closeClean(other)
  })
}

test('a commit that traps is undone and thrown, and the heap goes on', async () => {
  const relay = new FakeRelay()
  const { heap, errors } = await opening(relay)
  fill(heap)
  await heap.flush()
  const commits = relay.log.length
  const before = snapshot(heap.root)
  expecting(heap, { rebuilds: 1 })
  trapNext(OP.commit)
  assert.throws(() => heap.transact(() => {
    heap.root.visits.add(5)
    heap.root.list.push({ id: 'gone' })
    heap.root.made = heap.alloc({ gone: true })
  }), (error: HeapError) => error.code === 'ERR_ENGINE' && error.details['during'] === 'commit')
  assert.deepEqual(snapshot(heap.root), before)
  heap.transact(() => { heap.root.visits.add(1); heap.root.list.push({ id: 'c' }) })
  assert.equal(heap.root.visits.value, 4)
  await heap.flush({ timeoutMs: 3000 })
  assert.equal(relay.log.length, commits + 1)
  assert.equal(errors.length, 1)
  const other = await openOn<Any>(relay)
  assert.deepEqual(snapshot(other.root), snapshot(heap.root))
  await closeClean(other)
  await closeClean(heap)
})

test('a commit at the end of a turn that traps is one event, not two', async () => {
  const relay = new FakeRelay()
  const { heap, errors } = await opening(relay, { initial: { n: 0 } })
  await heap.flush()
  expecting(heap, { rebuilds: 1 })
  trapNext(OP.commit)
  heap.root.n = 1
  await turn()
  assert.equal(heap.root.n, 0)
  assert.deepEqual(errors.map(error => [error.code, error.details['during']]), [['ERR_ENGINE', 'commit']])
  heap.root.n = 2
  await heap.flush({ timeoutMs: 3000 })
  await closeClean(heap)
})

test('P5, P6: unacknowledged commits outlive the instance, under their numbers and as the bytes they were', async () => {
  const relay = new FakeRelay()
  const { heap, errors } = await opening(relay)
  const ref = fill(heap)
  await heap.flush()
  // Some are in the log and not acknowledged, some are made without a connection.
  relay.silent = true
  heap.root.visits.add(10)
  heap.transact(() => { ref.value.own.k = 5; heap.root.list.push({ id: 'c' }) }, { label: 'two' })
  await turn()
  relay.down = true
  relay.cut()
  heap.root.visits.add(100)
  const late = heap.alloc<Any>({ late: 1 })
  heap.root.late = late
  await turn()
  const { unsaved } = heap.status
  assert.ok(unsaved >= 3)
  const flushing = heap.flush({ timeoutMs: 5000 })
  expecting(heap, { rebuilds: 1 })
  trapNext(OP.stats)
  assert.equal(heap.stats().rebuilds, 1, 'it is asked again of the next instance')
  assert.equal(heap.status.unsaved, unsaved)
  // Without a connection all can be read and written.
  heap.root.visits.add(1000)
  late.value.late = 2
  assert.equal(heap.root.visits.value, 1113)
  await turn()
  relay.silent = false
  relay.down = false
  await flushing
  await heap.flush({ timeoutMs: 5000 })
  assert.ok(relay.again > 0, 'some were sent again')
  assert.equal(errors.length, 1)
  const seqs = relay.log.filter(entry => entry.author.replica === heap.replica).map(entry => entry.seq)
  assert.deepEqual(seqs, seqs.map((_, i) => i + 1))
  const other = await openOn<Any>(relay)
  assert.equal(other.root.visits.value, 1113)
  assert.deepEqual(snapshot(other.root), snapshot(heap.root))
  assert.deepEqual(snapshot(await other.ref<Any>(late.id).load()), { late: 2 })
  await closeClean(other)
  await closeClean(heap)
})

test('S15: a trap while a refused commit is being undone: it is undone, and what lies behind it is redone', async () => {
  const relay = new FakeRelay()
  const { heap, errors } = await opening(relay, { initial: { visits: counter(), list: [], map: {} } })
  await heap.flush()
  const refused: unknown[] = []
  heap.addEventListener('refused', ({ label }) => { refused.push(label) })
  relay.refuseNext = 32
  // The state from which the segment is to be made anew comes, and that traps: the redo is still to do.
  const snapshotFrame = 0x47
  trapNext(OP.receive, 'after', ({ input }) => {
    const r = new Reader(input)
    r.varint()
    r.varint()
    return r.u8() === snapshotFrame
  })
  heap.transact(() => { heap.root.visits.add(1); heap.root.list.push('refused') }, { label: 'first' })
  heap.transact(() => { heap.root.visits.add(10); heap.root.list.push('stands'); heap.root.map.made = { here: true } }, { label: 'second' })
  const { made } = heap.root.map
  await heap.flush({ timeoutMs: 3000 }).catch(() => {})
  await heap.sync({ timeoutMs: 3000 })
  await heap.flush({ timeoutMs: 3000 })
  assert.equal(traps.trapped, 1)
  assert.deepEqual(refused, ['first'])
  assert.deepEqual(snapshot(heap.root), { list: ['stands'], map: { made: { here: true } }, visits: 10 })
  assert.equal(heap.root.map.made, made)
  made.here = 'still'
  await heap.flush({ timeoutMs: 3000 })
  const other = await openOn<Any>(relay)
  assert.deepEqual(snapshot(other.root), snapshot(heap.root))
  assert.equal(errors.length, 1)
  expecting(heap, { rebuilds: heap.stats().rebuilds, refused: 1 })
  await closeClean(other)
  await closeClean(heap)
})

test('every operation may trap: waits end, loads arrive, claims are asked for again', async () => {
  const relay = new FakeRelay()
  const writer = await openOn<Any>(relay)
  const ref = fill(writer)
  const second = writer.refOf(writer.root.list[1] as Any).id
  const version = await writer.flush()
  for (const op of [OP.connected, OP.load, OP.wait, OP.dump, OP.object, OP.find, OP.claim, OP.join, OP.presence, OP.evict, OP.derive, OP.disconnected]) {
    const [first, before] = [traps.instances, traps.trapped]
    const { heap, errors } = await opening(relay)
    expecting(heap, { rebuilds: 1 })
    trapNext(op, 'after', ({ instance }) => instance >= first)
    heap.presence('room').set({ here: true })
    const claim = heap.claim(heap.ref(ref.id))
    const loaded = await heap.ref<Any>(ref.id).load({ timeoutMs: 3000 })
    assert.equal(loaded.own.k, 1)
    heap.refOf(heap.root.map.deep)
    assert.equal(heap.ref<Any>(second).peek(), heap.root.list[1])
    await heap.reach(version, { timeoutMs: 3000 })
    await heap.map('m', { partitions: 2 }).set('k', 1)
    await heap.flush({ timeoutMs: 3000 })
    assert.ok(await claim !== undefined, `operation ${op}`)
    await heap.evict()
    relay.cut()
    heap.root[`done ${op}`] = true
    await heap.flush({ timeoutMs: 3000 })
    ;(await claim)!.release()
    await heap.sync({ timeoutMs: 3000 })
    traps.plan = () => undefined
    assert.equal(traps.trapped - before, 1, `operation ${op}`)
    assert.equal(errors.length, 1, `operation ${op}`)
    await closeClean(heap)
  }
  await closeClean(writer)
})

/** An engine traps on what it is given for this segment of this heap, if it holds a word. */
function poisonous(instanceOf: (instance: number) => boolean, word = 'POISON'): void {
  traps.poison = (_segment, call) => instanceOf(call.instance) && call.op === OP.receive && holds(call.input, word)
}

test('R12: a delta that traps again quarantines its segment here, and the rest goes on', async () => {
  const relay = new FakeRelay()
  const other = await openOn<Any>(relay)
  const bad = other.alloc<Any>({ n: 1, list: [] })
  const good = other.alloc<Any>({ n: 1 })
  other.root.refs = [bad, good]
  await other.flush()
  const { heap, errors, quarantined } = await opening(relay)
  const held = await heap.ref<Any>(bad.id).load()
  const fine = await heap.ref<Any>(good.id).load()
  poisonous(instance => instance !== 0)
  expecting(heap, { rebuilds: 2, quarantined: 1 })
  other.transact(() => { bad.value.word = 'POISON'; bad.value.n = 2 })
  other.transact(() => { good.value.n = 2; other.root.more = 1 })
  await other.flush()
  await heap.sync({ timeoutMs: 3000 })
  assert.deepEqual(quarantined, [bad.id])
  assert.equal(errors.length, 2, 'one event for each rebuild')
  assert.equal(heap.root.more, 1)
  assert.equal(fine.n, 2)
  // The last good values stay readable; loads and writes say why they cannot be.
  assert.equal(held.n, 1)
  assert.throws(() => { held.n = 3 }, code('ERR_QUARANTINED'))
  assert.throws(() => held.list.push(1), code('ERR_QUARANTINED'))
  assert.throws(() => heap.ref<Any>(bad.id).value, code('ERR_QUARANTINED'))
  await assert.rejects(heap.ref<Any>(bad.id).load({ timeoutMs: 3000 }), code('ERR_QUARANTINED'))
  fine.n = 3
  await other.reach(await heap.flush({ timeoutMs: 3000 }))
  assert.equal(good.value.n, 3)
  assert.ok(heap.stats().quarantined >= 1)
  expecting(heap, { rebuilds: 2, quarantined: heap.stats().quarantined })
  await closeClean(heap)
  await closeClean(other)
})

test('R12: a segment that cannot be loaded without a trap is quarantined, for whoever loads it', async () => {
  const relay = new FakeRelay()
  const other = await openOn<Any>(relay)
  const bad = other.alloc<Any>({ word: 'POISON' })
  other.root.n = 1
  await other.flush()
  const { heap, errors, quarantined } = await opening(relay)
  poisonous(instance => instance !== 0)
  await assert.rejects(heap.ref<Any>(bad.id).load({ timeoutMs: 3000 }), code('ERR_QUARANTINED'))
  assert.deepEqual(quarantined, [bad.id])
  assert.equal(errors.length, 2)
  heap.root.n = 2
  await other.reach(await heap.flush({ timeoutMs: 3000 }))
  assert.equal(other.root.n, 2)
  expecting(heap, { rebuilds: 2, quarantined: heap.stats().quarantined })
  await closeClean(heap)
  await closeClean(other)
})

test('a quarantined root is readable, takes no writes, and leaves the rest as it was', async () => {
  const relay = new FakeRelay()
  const other = await openOn<Any>(relay)
  const ref = other.alloc<Any>({ n: 1 })
  other.root.n = 1
  await other.flush()
  const { heap, quarantined } = await opening(relay)
  const live = await heap.ref<Any>(ref.id).load()
  const { root } = heap
  poisonous(instance => instance !== 0)
  other.root.word = 'POISON'
  await other.flush()
  await heap.sync({ timeoutMs: 3000 })
  assert.equal(quarantined.length, 1)
  assert.equal(heap.root, root)
  assert.equal(heap.root.n, 1)
  assert.throws(() => { heap.root.n = 2 }, code('ERR_QUARANTINED'))
  live.n = 2
  await other.reach(await heap.flush({ timeoutMs: 3000 }))
  assert.equal(ref.value.n, 2)
  expecting(heap, { rebuilds: heap.stats().rebuilds, quarantined: heap.stats().quarantined })
  await closeClean(heap)
  await closeClean(other)
})

test('a segment that cannot be made again is quarantined, and the rest is there', async () => {
  const relay = new FakeRelay()
  const { heap, errors, quarantined } = await opening(relay)
  const [bad, good] = [heap.alloc<Any>({ word: 'POISON', n: 1 }), heap.alloc<Any>({ n: 1 })]
  const held = bad.value
  heap.root.refs = [bad, good]
  await heap.flush()
  let once = false
  traps.plan = ({ op, input }) => {
    if (op === OP.restore && holds(input, 'POISON')) return 'after'
    return op === OP.stats && !once ? (once = true, 'after') : undefined
  }
  heap.stats()
  await turn()
  assert.deepEqual(quarantined, [bad.id])
  assert.equal(held.n, 1)
  assert.throws(() => { held.n = 2 }, code('ERR_QUARANTINED'))
  good.value.n = 2
  await heap.flush({ timeoutMs: 3000 })
  assert.equal(errors.length, 1)
  expecting(heap, { rebuilds: 1, quarantined: 1 })
  await closeClean(heap)
})

test('what traps at every connection ends the heap after three rebuilds, with a word, and does not spin', async () => {
  const relay = new FakeRelay()
  const { heap, errors } = await opening(relay, { initial: { n: 1 } }, opened => opened)
  await heap.flush()
  traps.plan = call => (call.op === OP.connected ? 'after' : undefined)
  relay.cut()
  await assert.rejects(heap.sync({ timeoutMs: 3000 }), code('ERR_ENGINE'))
  await turn()
  assert.equal(traps.trapped, 4)
  assert.equal(errors.length, 4, 'one for each rebuild, one for the end')
  assert.match(errors[3]!.message, /too often/)
  assert.equal(heap.status.connection, 'offline')
  assert.equal(heap.root.n, 1)
  assert.throws(() => heap.transact(() => { heap.root.n = 2 }), code('ERR_ENGINE'))
  assert.equal(heap.root.n, 1)
  assert.equal(heap.stats().rebuilds, 3)
  await assert.rejects(heap.flush(), code('ERR_ENGINE'))
  await heap.close()
  assert.equal(traps.trapped, 4)
})

test('commits that trap, one after the other, are each undone and thrown', async () => {
  const relay = new FakeRelay()
  const { heap, errors } = await opening(relay, { initial: { n: 1 } })
  await heap.flush()
  traps.plan = call => (call.op === OP.commit && holds(call.input, 'BAD') ? 'after' : undefined)
  for (let i = 0; i < 6; i++) assert.throws(() => heap.transact(() => { heap.root.n = 2; heap.root.word = 'BAD' }), code('ERR_ENGINE'))
  heap.root.m = 1
  await heap.flush({ timeoutMs: 3000 })
  assert.deepEqual({ ...snapshot(heap.root) }, { m: 1, n: 1 })
  assert.equal(errors.length, 6)
  expecting(heap, { rebuilds: 6 })
  await closeClean(heap)
})

test('much that came to a segment is kept in few bytes, and is all there after a trap', async () => {
  const relay = new FakeRelay()
  const { heap } = await opening(relay)
  const other = await openOn<Any>(relay)
  heap.root.list = []
  heap.root.made = {}
  await other.reach(await heap.flush())
  let kept = 0
  traps.plan = call => {
    if (call.op === OP.keep && call.instance === 0) kept += 1
    return undefined
  }
  for (let i = 0; i < 40; i++) {
    heap.root.big = 'x'.repeat(20_000) + i
    heap.root.list.push({ i })
    await heap.flush()
    other.root.made[i] = { by: 'other' }
    await heap.reach(await other.flush())
  }
  assert.ok(kept >= 2, `told anew ${kept} times`)
  const first = heap.root.list[0]
  expecting(heap, { rebuilds: 1 })
  trapNext(OP.stats)
  heap.stats()
  assert.equal(heap.root.list[0], first)
  first.i = 'changed'
  heap.root.made[39].by = 'me'
  await other.reach(await heap.flush({ timeoutMs: 3000 }))
  assert.deepEqual(snapshot(other.root), snapshot(heap.root))
  assert.equal(other.root.list[0].i, 'changed')
  assert.equal(other.root.made[39].by, 'me')
  await closeClean(heap)
  await closeClean(other)
})

test('S2: who lost to another kind is told, also after a rebuild', async () => {
  const relay = new FakeRelay()
  const { heap: one, errors } = await opening(relay)
  const { heap: other, errors: others } = await opening(relay)
  const lost = (of: HeapError[]): number => of.filter(error => error.code === 'ERR_CONFLICT').length
  const rounds = 8
  for (let round = 0; round < rounds; round++) {
    const [a, b] = [one.alloc<Any>({}), one.alloc<Any>({})]
    await other.reach(await one.flush())
    for (const ref of [a, b]) await other.ref<Any>(ref.id).load()
    for (const ref of [a, b]) {
      one.transact(() => { ref.value.k = { mine: round } })
      other.transact(() => { other.ref<Any>(ref.id).value.k = ['theirs'] })
    }
    trapNext(OP.stats)
    one.stats()
    await Promise.all([one.flush(), other.flush()])
    await Promise.all([one.sync(), other.sync()])
    await turn()
    assert.equal(lost(errors) + lost(others), 2 * (round + 1), 'one of two is lost, and its maker told once')
  }
  assert.ok(lost(errors) > 0 && lost(errors) < 2 * rounds, 'nobody wins everywhere')
  assert.equal(errors.length - lost(errors), rounds)
  expecting(one, { rebuilds: rounds })
  await closeClean(one)
  await closeClean(other)
})
