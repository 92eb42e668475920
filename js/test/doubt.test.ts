// What a relay may say of commits besides taking and refusing them, as a program hears it: the disk is full, another process has
// this replica's id (F1, F2), nobody knows whether they were saved (G5).
import assert from 'node:assert/strict'
import { afterEach, test } from 'node:test'
import { counter, open, snapshot, type Heap, type HeapError } from '../src/index.js'
import { Writer } from '../src/edge.js'
import { closeAll, closeClean, expecting, keep, openOn } from './clean.js'
import { FakeRelay } from './fake-relay.js'

type Any = Record<string, any>

afterEach(closeAll)

const turn = (): Promise<void> => new Promise(resolve => setTimeout(resolve, 5))

/** A heap with a counter that is saved, and what it is told from then on. */
async function begun(): Promise<{ relay: FakeRelay; heap: Heap<Any>; errors: HeapError[] }> {
  const relay = new FakeRelay()
  const heap = keep(await open<Any>('ws://test/heap/h', { webSocket: relay.socket, timeoutMs: 3000, initial: { n: counter() } }))
  const errors: HeapError[] = []
  heap.addEventListener('error', error => { errors.push(error) })
  heap.root.n.add(1)
  await heap.flush()
  return { relay, heap, errors }
}

async function allSee(relay: FakeRelay, heap: Heap<Any>): Promise<void> {
  const other = await openOn<Any>(relay)
  assert.deepEqual(snapshot(other.root), snapshot(heap.root))
  await closeClean(other)
}

test('P5: a relay whose disk is full is told of once, and what was written waits for room and counts once', async () => {
  const { relay, heap, errors } = await begun()
  const entries = relay.log.length
  relay.meet = seq => ({ kind: 0x4b, body: new Writer().varint(0).varint(seq).varint(48).varint(5).slice() })
  heap.root.n.add(10)
  await assert.rejects(heap.flush({ timeoutMs: 60 }), { code: 'ERR_TIMEOUT' })
  assert.deepEqual(errors.map(({ code, retryable }) => [code, retryable]), [['ERR_STORAGE_FULL', true]])
  assert.deepEqual([heap.root.n.value, heap.status.unsaved, relay.log.length], [11, 1, entries])
  relay.meet = undefined
  await heap.flush({ timeoutMs: 3000 })
  assert.equal(relay.log.length, entries + 1)
  assert.equal(errors.length, 1)
  await allSee(relay, heap)
  await closeClean(heap)
})

test('F1, F2: a process whose id another one commits under is told so once, and goes on as another with what it wrote', async () => {
  const { relay, heap, errors } = await begun()
  const was = heap.replica
  expecting(heap, { rebuilds: 1 })
  relay.meet = seq => {
    relay.meet = undefined
    return { kind: 0x49, body: new Writer().varint(0).varint(seq).raw(new Uint8Array(8).fill(9)).slice() }
  }
  heap.root.n.add(10)
  await heap.flush({ timeoutMs: 3000 })
  await turn()
  assert.notEqual(heap.replica, was)
  assert.deepEqual(errors.map(({ code, details }) => [code, details['was'], details['replica'], details['moved']]), [['ERR_CONFLICT', was, heap.replica, 1]])
  heap.root.n.add(100)
  await heap.flush({ timeoutMs: 3000 })
  assert.equal(heap.root.n.value, 111)
  assert.equal(relay.log.at(-1)!.author.replica, heap.replica, 'what is new is of the new id')
  assert.ok(relay.log.slice(-2).every(entry => entry.author.replica !== was))
  await allSee(relay, heap)
  await closeClean(heap)
})

test('G5: commits of which nobody knows whether they were saved are one event with what they did, and are not made again', async () => {
  const { relay, heap, errors } = await begun()
  const [entries, was] = [relay.log.length, heap.replica]
  expecting(heap, { rebuilds: 1 })
  relay.meet = () => ({ kind: 0x4c, body: new Writer().varint(0).slice() })
  heap.transact(() => { heap.root.n.add(10) }, { label: 'ten' })
  await assert.rejects(heap.flush({ timeoutMs: 3000 }), { code: 'ERR_CONFLICT' })
  await turn()
  relay.meet = undefined
  assert.deepEqual(errors.map(error => error.code), ['ERR_CONFLICT'])
  const { edits, labels, was: before, replica } = errors[0]!.details as { edits: unknown[]; labels: string[]; was: string; replica: string }
  assert.deepEqual([edits.length, labels, before, replica], [1, ['ten'], was, heap.replica])
  assert.notEqual(replica, was, 'what is new is of another line')
  assert.equal(heap.status.unsaved, 0)
  await heap.sync({ timeoutMs: 3000 })
  assert.equal(relay.log.length, entries, 'it is not made again')
  heap.root.n.add(100)
  await heap.flush({ timeoutMs: 3000 })
  assert.deepEqual([relay.log.length, heap.root.n.value], [entries + 1, 101])
  await allSee(relay, heap)
  await closeClean(heap)
})
