// Heaps of tests: opened on a relay in memory, closed when the test is over, and asserted to have refused, quarantined and
// rebuilt nothing unless the test is about that. Importing this makes every heap compare its mirrors with their engines.
import assert from 'node:assert/strict'
import { open, type Heap, type HeapStats, type OpenOptions } from '../src/index.js'
import type { FakeRelay } from './fake-relay.js'

process.env['COHEAP_DEBUG'] ??= '1'

type Mishaps = Pick<HeapStats, 'refused' | 'quarantined' | 'rebuilds'>

const opened: Heap<object>[] = []
const expected = new WeakMap<object, Partial<Mishaps>>()
const asserted = new WeakSet<object>()

/** Opens a heap that {@link closeAll} closes; an `error` event of it fails the test. */
export async function openOn<Root extends object>(relay: FakeRelay, options: OpenOptions<Root> = {}): Promise<Heap<Root>> {
  const heap = await open<Root>('ws://test/heap/h', { webSocket: relay.socket, timeoutMs: 3000, ...options })
  heap.addEventListener('error', error => assert.fail(error))
  return keep(heap)
}

/** Lets {@link closeAll} close a heap that the test opened itself. */
export function keep<Root extends object>(heap: Heap<Root>): Heap<Root> {
  opened.push(heap as unknown as Heap<object>)
  return heap
}

/** For a test that is about a refusal, a quarantine or a rebuild: how many there are to be. */
export function expecting(heap: Heap<any>, mishaps: Partial<Mishaps>): void {
  expected.set(heap, mishaps)
}

/** Asserts that nothing happened to a heap that was not expected. A closed one does not know any more. */
export function assertClean(heap: Heap<any>): void {
  assert.notEqual(heap.status.connection, 'closed', 'a heap is asserted to be clean before it is closed')
  const { refused, quarantined, rebuilds } = heap.stats()
  assert.deepEqual({ refused, quarantined, rebuilds }, { refused: 0, quarantined: 0, rebuilds: 0, ...expected.get(heap) })
  asserted.add(heap)
}

/** Closes a heap that is asserted to be clean. */
export async function closeClean(heap: Heap<any>, options: { flush?: boolean; timeoutMs?: number } = {}): Promise<void> {
  assertClean(heap)
  await heap.close(options)
}

/** For `afterEach`. What the test closed itself it has asserted itself. All are closed, whatever is found: an open one keeps the process. */
export async function closeAll(): Promise<void> {
  const found: unknown[] = []
  for (const heap of opened.splice(0)) {
    if (asserted.has(heap) && heap.status.connection === 'closed') continue
    try {
      assertClean(heap)
    } catch (error) {
      found.push(error)
    }
    await heap.close({ flush: false })
  }
  if (found.length > 0) throw found[0]
}
