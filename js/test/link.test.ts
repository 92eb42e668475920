// Connections: tokens, status, being refused for good, and listeners with their options.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { open, type Status } from '../src/index.js'
import { closeReason } from '../src/errors.js'
import { closeClean } from './clean.js'
import { FakeRelay } from './fake-relay.js'

type Any = Record<string, any>

test('the token is asked for at each connection, and may take its time', async () => {
  const relay = new FakeRelay()
  const reasons: string[] = []
  const heap = await open<Any>('ws://test/heap/h', { webSocket: relay.socket, token: async ({ reason }) => { await sleep(5); reasons.push(reason); return 'secret' } })
  relay.cut()
  await heap.sync({ timeoutMs: 2000 })
  assert.deepEqual(reasons, ['connect', 'refresh'])
  await closeClean(heap)
})

test('a token that cannot be had is tried again until the time is over', async () => {
  const relay = new FakeRelay()
  await assert.rejects(open('ws://test/heap/h', { webSocket: relay.socket, timeoutMs: 50, token: () => { throw new Error('no vault') } }), { code: 'ERR_TIMEOUT', message: /no vault/ })
})

test('status tells of connections and of what is unsaved', async () => {
  const relay = new FakeRelay()
  const heap = await open<Any>('ws://test/heap/h', { webSocket: relay.socket })
  const seen: Status[] = []
  const once: Status[] = []
  const stop = new AbortController()
  heap.addEventListener('status', status => { seen.push(status) }, { signal: stop.signal })
  heap.addEventListener('status', status => { once.push(status) }, { once: true })
  relay.silent = true
  heap.root['x'] = 1
  await sleep(5)
  assert.equal(heap.status.unsaved, 1)
  assert.ok(heap.status.unsavedMs >= 1)
  relay.silent = false
  relay.cut()
  await heap.flush({ timeoutMs: 2000 })
  await sleep(1)
  assert.deepEqual([...new Set(seen.map(status => status.connection))].sort(), ['connecting', 'offline', 'online'])
  assert.deepEqual([heap.status.unsaved, heap.status.unsavedMs], [0, 0])
  assert.equal(once.length, 1)
  stop.abort()
  const count = seen.length
  heap.root['x'] = 2
  await heap.flush()
  assert.equal(seen.length, count)
  await closeClean(heap)
})

test('refused for good: what waits fails, reads go on, and nothing is tried again', async () => {
  const relay = new FakeRelay()
  const heap = await open<Any>('ws://test/heap/h', { webSocket: relay.socket, initial: { x: 1 } })
  await heap.flush()
  const errors: string[] = []
  heap.addEventListener('error', error => { errors.push(error.code) })
  relay.silent = true
  heap.root['x'] = 2
  const flush = heap.flush()
  const load = heap.ref('coheap:' + 'A'.repeat(22)).load()
  load.catch(() => {})
  relay.closeNext = 4006
  relay.cut()
  await assert.rejects(flush, { code: 'ERR_FORBIDDEN', retryable: false })
  await assert.rejects(load, { code: 'ERR_FORBIDDEN' })
  await assert.rejects(heap.sync(), { code: 'ERR_FORBIDDEN' })
  assert.equal(heap.root['x'], 2)
  assert.deepEqual(errors, ['ERR_FORBIDDEN'])
  assert.equal(heap.status.connection, 'offline')
  await assert.rejects(closeClean(heap), { code: 'ERR_UNSAVED' })
})

test('the socket may be anything that behaves as one, and its failures are losses', async () => {
  const relay = new FakeRelay()
  let made = 0
  const heap = await open<Any>('ws://test/heap/h', {
    webSocket: () => {
      if (made++ < 2) throw new Error('no proxy')
      return relay.socket()
    },
  })
  assert.equal(made, 3)
  await closeClean(heap)
})

test('close codes mean what the wire says', () => {
  assert.deepEqual([4005, 4007, 4008, 4011, 4014, 1012, 1006].map(code => closeReason(code, '').code), ['ERR_AUTH', 'ERR_NOT_FOUND', 'ERR_TIMEOUT', 'ERR_OFFLINE', 'ERR_VERSION_LOST', 'ERR_OFFLINE', 'ERR_OFFLINE'])
  assert.deepEqual([4001, 4008, 4009, 4010, 4013, 1012].map(code => closeReason(code, '').retryable), [false, true, true, false, true, true])
})
