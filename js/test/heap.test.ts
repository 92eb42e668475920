// Heaps end to end over a relay in memory: the real engine, the real wire, several replicas in one process.
import assert from 'node:assert/strict'
import { afterEach, test } from 'node:test'
import { counter, HeapError, move, open, set, snapshot, text, type Counter, type Heap, type LiveSet, type OpenOptions, type Ref, type Text } from '../src/index.js'
import { FakeRelay } from './fake-relay.js'

const heaps: Heap<unknown>[] = []
afterEach(async () => {
  for (const heap of heaps.splice(0)) await heap.close({ flush: false }).catch(() => {})
})

async function openOn<Root extends object>(relay: FakeRelay, options: OpenOptions<Root> = {}): Promise<Heap<Root>> {
  const heap = await open<Root>('ws://test/heap/h', { webSocket: relay.socket, timeoutMs: 3000, ...options })
  heaps.push(heap as Heap<unknown>)
  heap.addEventListener('error', error => assert.fail(error))
  return heap
}

interface App { title: string; jobs: { name: string; done: boolean }[]; visits: Counter; notes: Text; tags: LiveSet<string>; any: Record<string, unknown> }

test('what one replica writes, another reads', async () => {
  const relay = new FakeRelay()
  const a = await openOn<App>(relay, { initial: { title: '', jobs: [], visits: counter(), notes: text(), tags: set(), any: {} }, name: 'a' })
  const b = await openOn<App>(relay)
  a.root.title = 'Corner shop'
  a.root.visits.add(2)
  a.root.notes.insert(0, 'hello')
  a.root.tags.add('x').add('y')
  a.root.jobs.push({ name: 'ship', done: false }, { name: 'pack', done: false })
  a.root.any['deep'] = { list: [1, [2, { three: 3n }]], when: new Date(5), bytes: Uint8Array.of(1, 2) }
  await b.reach(await a.flush())
  assert.deepEqual(snapshot(b.root), snapshot(a.root))
  assert.equal(b.root.visits.value, 2)
  b.root.visits.add(1)
  a.root.visits.add(1)
  b.root.jobs[0]!.done = true
  b.root.notes.update('hello world')
  await b.flush()
  await a.sync()
  assert.equal(a.root.visits.value, 4)
  assert.equal(a.root.jobs[0]!.done, true)
  assert.equal(String(a.root.notes), 'hello world')
})
