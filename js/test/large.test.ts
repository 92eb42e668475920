// S14 where many small things add up: outside `transact` a large batch becomes several commits, or the write that is too large
// throws and nothing else is lost; within, the transaction throws at its end and leaves nothing. No commit frame that leaves is
// larger than a relay takes.
import assert from 'node:assert/strict'
import { afterEach, test } from 'node:test'
import { set, snapshot, type Heap, type LiveSet } from '../src/index.js'
import { closeAll, openOn } from './clean.js'
import { FakeRelay } from './fake-relay.js'

type Any = Record<string, any>

/** What a relay takes: the largest commit, and a quarter more for its frame. */
const FRAME_BYTES_MAX = 1.25 * (1 << 20)
const WAIT = { timeoutMs: 20_000 }

afterEach(closeAll)

const numbers = (count: number): number[] => [...Array(count).keys()]
const maps = (count: number): object[] => Array.from({ length: count }, () => ({}))
/** A write of one value, which cannot be divided: whether it was stored, or threw that it is too large. */
function stored(write: () => void): boolean {
  try {
    write()
    return true
  } catch (error) {
    assert.equal((error as { code?: unknown }).code, 'ERR_TOO_LARGE', String(error))
    return false
  }
}

/** Writes between two other writes of the same turn; gives what another replica finds. */
async function between(write: (heap: Heap<Any>) => void): Promise<Any> {
  const relay = new FakeRelay()
  const heap = await openOn<Any>(relay, { initial: { l: [] } })
  await heap.flush()
  // It gets commit after commit: this relay cuts no large state into chunks.
  const other = await openOn<Any>(relay)
  heap.root['before'] = 1
  write(heap)
  heap.root['after'] = 2
  await heap.flush(WAIT)
  heap.root['later'] = 3
  const version = await heap.flush(WAIT)
  assert.ok(relay.largestCommit > 0 && relay.largestCommit <= FRAME_BYTES_MAX, `a commit of ${relay.largestCommit} bytes`)
  await other.reach(version, WAIT)
  assert.deepEqual([other.root['before'], other.root['after'], other.root['later']], [1, 2, 3])
  assert.deepEqual(snapshot(other.root), snapshot(heap.root))
  return other.root
}

test('S14: a list of many numbers is stored, or throws and nothing else is lost', async () => {
  let is: boolean | undefined
  const root = await between(heap => { is = stored(() => { heap.root['l'] = numbers(150_000) }) })
  assert.equal(root['l'].length, is === true ? 150_000 : 0)
  if (is === true) assert.deepEqual([root['l'][0], root['l'][77_777], root['l'].at(-1)], [0, 77_777, 149_999])
})

test('S14: a set of many numbers is stored, or throws and nothing else is lost', async () => {
  let is: boolean | undefined
  const root = await between(heap => { is = stored(() => { heap.root['s'] = set(numbers(100_000)) }) })
  assert.equal((root['s'] as LiveSet<number> | undefined)?.size, is === true ? 100_000 : undefined)
})

test('S14: one push of many small objects is stored whole, in order', async () => {
  const root = await between(heap => { heap.root['l'].push(...maps(75_000), 'last') })
  assert.equal(root['l'].length, 75_001)
  assert.deepEqual(snapshot(root['l'][50_000]), {})
  assert.equal(root['l'].at(-1), 'last')
})

test('S14: many pushes of one small object in one turn are stored whole, in order', async () => {
  const root = await between(heap => {
    for (let i = 0; i < 60_000; i++) heap.root['l'].push({})
    heap.root['l'].push('last')
  })
  assert.equal(root['l'].length, 60_001)
  assert.equal(root['l'].at(-1), 'last')
})

test('S14: a transaction of so many small things throws at its end, is undone, and the heap goes on', async () => {
  const relay = new FakeRelay()
  const heap = await openOn<Any>(relay, { initial: { l: [] } })
  await heap.flush()
  const commits = relay.log.length
  const before = snapshot(heap.root)
  const writes: ((root: Any) => void)[] = [
    root => { root['l'] = numbers(150_000) },
    root => { root['s'] = set(numbers(100_000)) },
    root => { root['l'].push(...maps(75_000)) },
    root => { for (let i = 0; i < 60_000; i++) root['l'].push({}) },
  ]
  for (const write of writes) {
    let ended = false
    assert.throws(() => heap.transact(() => { heap.root['x'] = 1; write(heap.root); ended = true }), { code: 'ERR_TOO_LARGE' }, String(write))
    assert.ok(ended, 'it is judged at the end')
    assert.deepEqual(snapshot(heap.root), before)
  }
  await heap.flush(WAIT)
  assert.equal(relay.log.length, commits)
  heap.root['l'].push({ goes: 'on' })
  await heap.flush(WAIT)
  const other = await openOn<Any>(relay)
  assert.deepEqual(snapshot(other.root), { l: [{ goes: 'on' }] })
  assert.ok(relay.largestCommit <= FRAME_BYTES_MAX)
})
