// Connections: tokens, status, being refused for good, and listeners with their options.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { open, type Status } from '../src/index.js'
import { spawn } from 'node:child_process'
import { createServer, type AddressInfo, type Socket } from 'node:net'
import { closeReason } from '../src/errors.js'
import { closeClean } from './clean.js'
import { Link, type LinkEvents } from '../src/link.js'
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
  assert.deepEqual([4005, 4007, 4008, 4011, 4014, 4015, 1012, 1006].map(code => closeReason(code, '').code), ['ERR_AUTH', 'ERR_NOT_FOUND', 'ERR_TIMEOUT', 'ERR_OFFLINE', 'ERR_VERSION_LOST', 'ERR_CORRUPT', 'ERR_OFFLINE', 'ERR_OFFLINE'])
  assert.deepEqual([4001, 4008, 4009, 4010, 4013, 4015, 1012].map(code => closeReason(code, '').retryable), [false, true, true, false, true, false, true])
})

/** A socket that a test plays the relay of. */
class Wire {
  binaryType = ''
  bufferedAmount = 0
  readonly sent: Uint8Array[] = []
  closed = false
  readonly #listeners = new Map<string, (event: unknown) => void>()
  send(bytes: Uint8Array): void { this.sent.push(bytes.slice()) }
  close(): void { this.closed = true }
  addEventListener(type: string, fn: (event: never) => void): void { this.#listeners.set(type, fn as (event: unknown) => void) }
  emit(type: string, event: unknown = {}): void { this.#listeners.get(type)?.(event) }
  say(...bytes: number[]): void { this.emit('message', { data: Uint8Array.from(bytes).buffer }) }
  get pings(): number[] { return this.sent.filter(bytes => bytes.length === 4 && bytes[1] === 0x0e).map(bytes => bytes[3]!) }
}

/** A link over such sockets, with times of milliseconds. */
function linkOver(times: { pingMs: number; answerMs: number }, events: Partial<LinkEvents> = {}): { link: Link; wires: Wire[]; downs: string[] } {
  const wires: Wire[] = []
  const downs: string[] = []
  const webSocket = () => wires[wires.push(new Wire()) - 1]!
  const link = new Link({ url: 'ws://test/heap/h', webSocket, prepare: async () => {}, times }, {
    up() {}, receive() {}, trying() {}, ended() {}, down: reason => { downs.push(reason.text) }, ...events,
  })
  link.start()
  return { link, wires, downs }
}

async function until(truth: () => boolean): Promise<void> {
  for (let i = 0; i < 400 && !truth(); i++) await sleep(5)
  assert.ok(truth(), 'it did not come to that in 2 s')
}

test('a relay that accepts and says nothing is given up and tried again', async () => {
  const { link, wires, downs } = linkOver({ pingMs: 10_000, answerMs: 40 })
  await until(() => wires.length === 2)
  assert.ok(wires[0]!.closed)
  wires[1]!.emit('open')
  await until(() => wires.length === 3)
  assert.deepEqual(downs, Array(2).fill('nothing came from the relay for 40 ms'))
  assert.equal(link.rttMs, undefined)
  // What comes late over a connection that was given up goes nowhere.
  wires[0]!.emit('open')
  wires[0]!.emit('close', { code: 4006 })
  assert.equal(downs.length, 2)
  link.end()
})

test('pieces of a long answer to the hello keep the attempt alive', async () => {
  const { link, wires, downs } = linkOver({ pingMs: 10_000, answerMs: 150 })
  await until(() => wires.length === 1)
  wires[0]!.emit('open')
  for (let i = 0; i < 6; i++) {
    await sleep(60)
    wires[0]!.say(0)
  }
  assert.deepEqual(downs, [])
  link.end()
})

test('a Ping goes out in its time, and its Pong is the round trip', async () => {
  const received: number[] = []
  const { link, wires, downs } = linkOver({ pingMs: 30, answerMs: 1000 }, { receive: message => { received.push(message.length) } })
  await until(() => wires.length === 1)
  const wire = wires[0]!
  wire.emit('open')
  await sleep(10)
  link.settled()
  const hello = link.rttMs!
  assert.ok(hello >= 5 && hello < 1000, `${hello}`)
  await until(() => wire.pings.length === 1)
  // Neither another frame nor another nonce is the answer; behind another frame in the message it is.
  wire.say(0, 0x45, 1, 7)
  wire.say(0, 0x56, 1, 99)
  assert.equal(link.rttMs, hello)
  wire.say(0, 0x45, 1, 7, 0x56, 1, wire.pings[0]!)
  assert.notEqual(link.rttMs, hello)
  assert.deepEqual(received, [4, 4, 7])
  await until(() => wire.pings.length === 2)
  assert.notEqual(wire.pings[0], wire.pings[1])
  assert.deepEqual(downs, [])
  link.end()
})

test('silence after a Ping is a loss, anything said is not', async () => {
  const { link, wires, downs } = linkOver({ pingMs: 20, answerMs: 100 })
  await until(() => wires.length === 1)
  wires[0]!.emit('open')
  link.settled()
  await until(() => wires[0]!.pings.length === 1)
  for (let i = 0; i < 6; i++) {
    await sleep(40)
    wires[0]!.say(0)
  }
  assert.deepEqual([wires[0]!.pings.length, downs.length], [1, 0])
  // A backlog that the network takes is a sign of life too, one that stands still is not.
  link.send(new Uint8Array(1000))
  for (let i = 9; i > 3; i--) {
    wires[0]!.bufferedAmount = i * 100
    await sleep(40)
  }
  assert.equal(downs.length, 0)
  await until(() => downs.length === 1)
  assert.ok(wires[0]!.closed)
  await until(() => wires.length === 2)
  link.end()
})

test('a process that was busy hears what came meanwhile before it believes in a loss', async () => {
  const { link, wires, downs } = linkOver({ pingMs: 10, answerMs: 30 })
  await until(() => wires.length === 1)
  wires[0]!.emit('open')
  link.settled()
  await until(() => wires[0]!.pings.length === 1)
  // The answer is there, but behind the timers that a long computation made late.
  setTimeout(() => setImmediate(() => wires[0]!.say(0, 0x56, 1, wires[0]!.pings[0]!)), 1)
  const end = performance.now() + 80
  while (performance.now() < end) { /* busy */ }
  await until(() => wires[0]!.pings.length === 2)
  assert.deepEqual(downs, [])
  link.end()
})

test('a heap learns its round trip', async () => {
  const heap = await open<Any>('ws://test/heap/h', { webSocket: new FakeRelay().socket })
  assert.ok(heap.status.rttMs! >= 0 && heap.status.rttMs! < 5000)
  await heap.close()
})

test('a link that is unreferenced keeps no process, be it at a relay that says nothing', async () => {
  const sockets: Socket[] = []
  const tarpit = createServer(socket => { sockets.push(socket) })
  await new Promise<void>(resolve => { tarpit.listen(0, '127.0.0.1', resolve) })
  const { port } = tarpit.address() as AddressInfo
  const module = new URL('../src/link.js', import.meta.url)
  // Unreferenced at once, and while the connection is being made.
  for (const delay of [0, 100]) {
    const program = `
      import { Link } from ${JSON.stringify(module.href)}
      const events = { up() {}, receive() {}, down() {}, trying() {}, ended() {} }
      const link = new Link({ url: 'ws://127.0.0.1:${port}/heap/h', prepare: async () => {}, times: { pingMs: 60000, answerMs: 60000 } }, events)
      link.start()
      setTimeout(() => link.unref(), ${delay})`
    const child = spawn(process.execPath, ['--input-type=module', '--eval', program], { stdio: 'ignore' })
    const ended = await Promise.race([new Promise<string>(resolve => { child.once('exit', code => { resolve(`ended with ${code}`) }) }), sleep(10_000, 'ran on', { ref: false })])
    child.kill('SIGKILL')
    assert.equal(ended, 'ended with 0')
  }
  for (const socket of sockets) socket.destroy()
  tarpit.close()
})
