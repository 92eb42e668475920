// Sharing and claims: who works on what, over a relay in memory.
import assert from 'node:assert/strict'
import { afterEach, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Heap, OpenOptions, Partition } from '../src/index.js'
import { closeAll, expecting, openOn as opening } from './clean.js'
import { FakeRelay } from './fake-relay.js'

type Any = Record<string, any>
afterEach(closeAll)
const openOn = (relay: FakeRelay, options: OpenOptions<Any> = {}): Promise<Heap<Any>> => opening<Any>(relay, options)

/** Works through a map with one worker; gives the partitions it did. */
async function work(heap: Heap<Any>, did: number[], each: (part: Partition<number>) => Promise<void> | void = () => {}): Promise<void> {
  const items = heap.map<number>('items')
  const out = heap.map<{ sum: number }>('out', { partitions: 4 })
  for await (const part of items.share({ run: 'r1' })) {
    await each(part)
    let sum = 0
    for (const [, n] of part.entries()) sum += n
    const result = await out.partitionOf(`p${part.index}`).load()
    heap.transact(() => { result.set(`p${part.index}`, { sum }); part.done() })
    did.push(part.index)
  }
}

test('S27: each partition is handed to one worker, and all end when all are done', async () => {
  const relay = new FakeRelay()
  const a = await openOn(relay)
  await a.map<number>('items', { partitions: 12 }).setMany(Array.from({ length: 200 }, (_, i) => [`k${i}`, i] as const))
  await a.flush()
  const workers = await Promise.all([1, 2, 3].map(() => openOn(relay)))
  const did: number[][] = [[], [], []]
  await Promise.all(workers.map((heap, i) => work(heap, did[i]!, () => sleep(2))))
  assert.deepEqual(did.flat().sort((x, y) => x - y), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11])
  assert.ok(did.filter(each => each.length > 0).length >= 2)
  for (const heap of workers) await heap.flush()
  await a.sync()
  let sum = 0
  for await (const [, each] of a.map<{ sum: number }>('out').entries()) sum += each.sum
  assert.equal(sum, 199 * 100)
})

test('S27: a worker that is cut off goes on, and one that leaves gives back what it had', async () => {
  const relay = new FakeRelay()
  const a = await openOn(relay)
  await a.map<number>('items', { partitions: 6 }).setMany([['x', 1], ['y', 2]])
  await a.flush()
  const quitter = await openOn(relay)
  for await (const part of quitter.map<number>('items').share({ run: 'r1' })) {
    assert.ok(part.loaded)
    break
  }
  const steady = await openOn(relay)
  const did: number[] = []
  let cut = false
  await work(steady, did, async () => {
    if (!cut) {
      cut = true
      relay.cut()
      await sleep(20)
    }
  })
  assert.equal(new Set(did).size, 6)
})

test('S27: what one worker began and gave up is the next that another gets', async () => {
  const relay = new FakeRelay()
  const [quitter, steady] = [await openOn(relay), await openOn(relay)]
  const sharing = (heap: Heap<Any>) => heap.map<number>('items', { partitions: 64 }).share({ run: 'r' })[Symbol.asyncIterator]()
  const going = sharing(steady)
  for (let round = 0; round < 4; round++) {
    const begins = sharing(quitter)
    const { index } = (await begins.next()).value as Partition<number>
    ;((await going.next()).value as Partition<number>).done()
    await steady.flush()
    await begins.return!()
    await quitter.sync()
    await steady.sync()
    const next = (await going.next()).value as Partition<number>
    assert.equal(next.index, index)
    next.done()
    await steady.flush()
  }
  await going.return!()
})

test('S27: what is marked as done in the data is not done again when the relay forgot', async () => {
  const relay = new FakeRelay()
  const a = await openOn(relay)
  await a.map<number>('items', { partitions: 3 }).setMany([['x', 1], ['y', 2], ['z', 3]])
  const did: number[] = []
  await work(a, did)
  await a.flush()
  assert.equal(did.length, 3)
  relay.groups.clear()
  const b = await openOn(relay)
  const again: number[] = []
  await work(b, again)
  assert.deepEqual(again, [])
})

test('a claim that was lost makes done() throw, and a refused done() is undone', async () => {
  const relay = new FakeRelay()
  const a = await openOn(relay)
  await a.map<number>('items', { partitions: 1 }).set('x', 1)
  await a.flush()
  const refused: string[] = []
  expecting(a, { refused: 1, rebuilds: 1 })
  a.addEventListener('refused', event => { refused.push(event.code) })
  let rounds = 0
  for await (const part of a.map<number>('items').share({ run: 'r' })) {
    rounds += 1
    if (rounds === 1) {
      // The relay gave the grant to somebody else, and this replica does not know yet.
      for (const group of relay.groups.values()) group.held.clear()
      part.done()
      part.set('x', 99)
      await assert.rejects(a.flush(), { code: 'ERR_REFUSED' })
      assert.throws(() => part.done(), { code: 'ERR_CONFLICT' })
    } else {
      assert.equal(part.get('x'), 99)
      part.done()
    }
  }
  assert.equal(rounds, 2)
  assert.deepEqual(refused, ['ERR_CONFLICT'])
})

async function until(holds: () => boolean): Promise<void> {
  for (let ms = 0; !holds(); ms++) {
    assert.ok(ms < 5000, `never: ${String(holds)}`)
    await sleep(1)
  }
}

test('S27: a done() of here that is refused later is not taken for what somebody else has done', async () => {
  const relay = new FakeRelay()
  const [a, b] = [await openOn(relay), await openOn(relay)]
  await a.map<number>('items', { partitions: 1 }).set('x', 1)
  await b.reach(await a.flush())
  expecting(a, { refused: 1, rebuilds: 1 })
  const sharing = (heap: Heap<Any>) => heap.map<number>('items').share({ run: 'r' })[Symbol.asyncIterator]()
  const [mine, theirs] = [sharing(a), sharing(b)]
  const part = (await mine.next()).value as Partition<number>
  // While it is away another gets the claim, and gives it back. What is on the disk is told late, and states are sent whole,
  // so they are shown anew with what was written here since.
  relay.catchUpBehind = 0
  relay.silent = true
  relay.down = true
  for (const connection of relay.connections) if (connection.hello?.replica === a.replica) connection.cut(1006)
  const [group] = relay.groups.values()
  group!.held.clear()
  await theirs.next()
  part.set('x', 99)
  part.done()
  relay.down = false
  const next = mine.next()
  await until(() => relay.log.at(-1)!.code !== 0)
  await theirs.return!()
  await until(() => group!.held.get('0')?.by === a.replica)
  await sleep(20)
  assert.equal(a.stats().refused, 0, 'granted again before it is known that the done() does not count')
  relay.answer()
  const again = (await next).value as Partition<number>
  assert.deepEqual([again.index, again.get('x')], [0, 99])
  again.done()
  await a.flush()
  assert.deepEqual(await mine.next(), { done: true, value: undefined })
})

test('claims: first come, released, asserted again after a reconnect', async () => {
  const relay = new FakeRelay()
  const [a, b] = [await openOn(relay), await openOn(relay)]
  const ref = a.alloc({ n: 1 })
  const mine = await a.claim(ref)
  assert.ok(mine !== undefined)
  assert.equal(await b.claim(b.ref(ref.id)), undefined)
  relay.cut()
  await a.sync()
  await sleep(20)
  assert.equal(mine.lost.aborted, false)
  assert.equal(await b.claim(b.ref(ref.id)), undefined)
  mine.release()
  await a.sync()
  const theirs = await b.claim(b.ref(ref.id))
  assert.ok(theirs !== undefined)
  for (const group of relay.groups.values()) group.held.clear()
  assert.ok(await a.claim(ref))
  relay.cut()
  await b.sync()
  await sleep(20)
  assert.equal(theirs.lost.aborted, true)
})
