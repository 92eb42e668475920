// What an engine cannot take in (R12): its segment stands still here, the relay is asked, and what a program holds goes on when the
// relay has answered.
import assert from 'node:assert/strict'
import { afterEach, test } from 'node:test'
import { open, type Heap, type HeapError } from '../src/index.js'
import { OP } from '../src/edge.js'
import { closeAll, closeClean, expecting, keep, openOn } from './clean.js'
import { FakeRelay } from './fake-relay.js'
import { holds, Traps } from './traps.js'

type Any = Record<string, any>

afterEach(closeAll)

const code = (expected: string) => (error: HeapError): boolean => error.code === expected
const RUBBISH = Uint8Array.of(1, 2, 3)
/** The segment of a ref's id, as the relay knows it. */
const segmentOf = (id: string): string => /^coheap:([\w-]{22})/.exec(id)![1]!

/** A heap whose events are gathered instead of failing the test. */
async function opening(relay: FakeRelay): Promise<{ heap: Heap<Any>; errors: HeapError[]; quarantined: string[] }> {
  const heap = keep(await open<Any>('ws://test/heap/h', { webSocket: relay.socket, timeoutMs: 3000 }))
  const errors: HeapError[] = []
  const quarantined: string[] = []
  heap.addEventListener('error', error => { errors.push(error) })
  heap.addEventListener('quarantine', ({ ref }) => { quarantined.push(ref.id) })
  return { heap, errors, quarantined }
}

async function until(what: () => boolean): Promise<void> {
  for (let tries = 0; !what(); tries++) {
    assert.ok(tries < 600, 'it does not come about')
    await new Promise(resolve => setTimeout(resolve, 5))
  }
}

/** A relay with two segments, made by somebody who has left. */
async function relayWithTwo(): Promise<{ relay: FakeRelay; bad: string; good: string }> {
  const relay = new FakeRelay()
  const author = await openOn<Any>(relay)
  const [bad, good] = [author.alloc<Any>({ n: 1, list: [{ x: 1 }] }), author.alloc<Any>({ n: 1 })]
  author.root.refs = [bad, good]
  await author.flush()
  await closeClean(author)
  return { relay, bad: bad.id, good: good.id }
}

for (const leftOut of [true, false]) {
  test(`R12: a segment that stands still goes on under the objects that are held, when the relay ${leftOut ? 'left out what is bad' : 'takes it in'}`, async () => {
    const { relay, bad, good } = await relayWithTwo()
    const { heap, errors, quarantined } = await opening(relay)
    const held = await heap.ref<Any>(bad).load()
    const fine = await heap.ref<Any>(good).load()
    const seen: number[] = []
    heap.watch(held, () => { seen.push(held.n) })
    const at = relay.log.length
    relay.inject(segmentOf(bad), RUBBISH)
    await until(() => quarantined.length > 0 && relay.reports.length > 0)
    assert.deepEqual(quarantined, [bad])
    assert.deepEqual(errors.map(error => error.code), ['ERR_QUARANTINED'])
    assert.deepEqual(relay.reports, [{ segment: segmentOf(bad), at }])
    // The last good values stay; loads and writes say why they cannot be; the rest goes on.
    assert.equal(held.n, 1)
    assert.equal(held.list[0].x, 1)
    assert.throws(() => { held.n = 2 }, code('ERR_QUARANTINED'))
    assert.throws(() => held.list.push({}), code('ERR_QUARANTINED'))
    assert.throws(() => heap.ref<Any>(bad).value, code('ERR_QUARANTINED'))
    await assert.rejects(heap.ref<Any>(bad).load({ timeoutMs: 3000 }), code('ERR_QUARANTINED'))
    fine.n = 2
    await heap.flush({ timeoutMs: 3000 })
    // Whoever comes back says it again, until there is an answer.
    relay.cut()
    await until(() => relay.reports.length === 2)
    if (!leftOut) relay.log[at]!.parts[0]!.bytes = Uint8Array.of(0, 0)
    relay.judge = () => (leftOut ? at : undefined)
    relay.cut()
    await until(() => relay.reports.length === 3)
    await until(() => { try { return heap.ref<Any>(bad).value === held } catch { return false } })
    const item = held.list[0]
    held.n = 5
    item.x = 2
    await heap.flush({ timeoutMs: 3000 })
    assert.deepEqual(seen.at(-1), 5)
    const other = await openOn<Any>(relay)
    const there = await other.ref<Any>(bad).load()
    assert.deepEqual([there.n, there.list[0].x], [5, 2])
    expecting(heap, { quarantined: heap.stats().quarantined })
    await closeClean(heap)
    await closeClean(other)
  })
}

test('R12: a quarantined root goes on, too', async () => {
  const { relay } = await relayWithTwo()
  const { heap, quarantined } = await opening(relay)
  const { root } = heap
  const at = relay.log.length
  relay.judge = () => at
  relay.inject(segmentOf(heap.refOf(heap.root).id), RUBBISH)
  await until(() => quarantined.length > 0)
  await heap.sync({ timeoutMs: 3000 })
  await until(() => { try { heap.root.k = 1; return true } catch { return false } })
  assert.equal(heap.root, root)
  await heap.flush({ timeoutMs: 3000 })
  expecting(heap, { quarantined: heap.stats().quarantined })
  await closeClean(heap)
})

test('R12: who took in what is left out shows its segment without it', async () => {
  const { relay, bad } = await relayWithTwo()
  const { heap, quarantined } = await opening(relay)
  const other = await openOn<Any>(relay)
  const held = await heap.ref<Any>(bad).load()
  const at = relay.log.length
  ;(await other.ref<Any>(bad).load()).word = 'later left out'
  await heap.reach(await other.flush())
  assert.equal(held.word, 'later left out')
  await closeClean(other)
  relay.leaveOut(segmentOf(bad), at)
  await until(() => !('word' in held))
  held.n = 9
  await heap.flush({ timeoutMs: 3000 })
  assert.deepEqual(quarantined, [])
  expecting(heap, { rebuilds: heap.stats().rebuilds })
  await closeClean(heap)
})

test('R12: a segment that traps is reported too, can be loaded when the relay has left out what is bad, and is given up if that traps', async () => {
  for (const leftOut of [true, false]) {
    const { relay, bad } = await relayWithTwo()
    const traps = new Traps()
    try {
      const { heap, quarantined } = await opening(relay)
      const held = await heap.ref<Any>(bad).load()
      const other = await openOn<Any>(relay)
      const at = relay.log.length
      relay.judge = () => (leftOut ? at : undefined)
      // Only what is given to the one heap, whatever instance it is in.
      traps.poison = (_segment, call) => call.instance !== 1 && call.op === OP.receive && holds(call.input, 'POISON')
      ;(await other.ref<Any>(bad).load()).word = 'POISON'
      await other.flush()
      await until(() => quarantined.length === (leftOut ? 1 : 2))
      await heap.sync({ timeoutMs: 3000 })
      assert.equal(relay.reports.length, 1, 'what traps again is not asked about again')
      assert.equal(held.n, 1)
      assert.throws(() => { held.n = 2 }, code('ERR_QUARANTINED'))
      if (leftOut) {
        await until(() => { try { return heap.ref<Any>(bad).value !== held } catch { return false } })
        const again = heap.ref<Any>(bad).value
        assert.deepEqual([again.n, again.word], [1, undefined])
        again.n = 3
      } else {
        await assert.rejects(heap.ref<Any>(bad).load({ timeoutMs: 3000 }), code('ERR_QUARANTINED'))
        heap.root.more = 1
      }
      await heap.flush({ timeoutMs: 3000 })
      expecting(heap, { rebuilds: heap.stats().rebuilds, quarantined: heap.stats().quarantined })
      expecting(other, { rebuilds: other.stats().rebuilds })
      await closeClean(heap)
      await closeClean(other)
    } finally {
      traps.end()
    }
  }
})
