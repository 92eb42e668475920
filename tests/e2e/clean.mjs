// Closes a heap that nothing happened to: no commit refused, no segment quarantined or rebuilt.
import assert from 'node:assert/strict'

process.env.COHEAP_DEBUG ??= '1'

/** Closes `heap`, and throws if it counted a mishap that was not `expected`. Every heap of these tests and their processes compares its mirrors. */
export async function closeClean(heap, expected = {}) {
  const { refused, quarantined, rebuilds } = heap.stats()
  await heap.close()
  assert.deepEqual({ refused, quarantined, rebuilds }, { refused: 0, quarantined: 0, rebuilds: 0, ...expected })
}
