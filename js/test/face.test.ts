// The public face where no other test comes by: the forms of watching and their options, waits, refs, what stands in the way
// of a load, eviction, figures, presence and the end.
import assert from 'node:assert/strict'
import { afterEach, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { inspect } from 'node:util'
import { HeapError, snapshot, type Change, type Heap, type Ref } from '../src/index.js'
import { assertClean, closeAll, closeClean, expecting, openOn } from './clean.js'
import { FakeRelay } from './fake-relay.js'
import { FixedWorld } from './fixed.js'

type Any = Record<string, any>
afterEach(closeAll)

/** Two heaps on one relay. */
async function two(): Promise<{ relay: FakeRelay; a: Heap<Any>; b: Heap<Any> }> {
  const relay = new FakeRelay()
  return { relay, a: await openOn<Any>(relay), b: await openOn<Any>(relay) }
}

/** Until something is so; fails after two seconds. */
async function until(so: () => boolean): Promise<void> {
  for (let i = 0; !so(); i++) {
    assert.ok(i < 400, `never: ${so.toString()}`)
    await sleep(5)
  }
}

test('watch takes a Ref and loads it, several Refs, and stops when asked', async () => {
  const { a, b } = await two()
  const refs = [a.alloc({ n: 1 }), a.alloc({ n: 2 })]
  a.root['refs'] = refs
  await b.reach(await a.flush())
  const [first, second] = b.root['refs'] as [Ref<Any>, Ref<Any>]
  const one: unknown[] = []
  const both: unknown[] = []
  b.watch(first, change => { one.push(change.patches) }, { initial: true })
  const stop = b.watch([first, second], change => { both.push(change.target) })
  await until(() => one.length === 1 && second.peek() !== undefined)
  assert.deepEqual(one, [[{ op: 'set', path: [], value: { n: 1 }, before: undefined }]])
  refs[0]!.value['n'] = 10
  await b.reach(await a.flush())
  refs[1]!.value['n'] = 20
  await b.reach(await a.flush())
  assert.deepEqual(one[1], [{ op: 'set', path: ['n'], value: 10, before: 1 }])
  assert.deepEqual(both, [first.value, second.value])
  stop[Symbol.dispose]()
  refs[0]!.value['n'] = 11
  await b.reach(await a.flush())
  assert.equal(one.length, 3)
  assert.equal(both.length, 2)
  assert.throws(() => b.watch(5 as never, () => {}), TypeError)
})

test('watch options: not the own changes, the state at the call, until a signal', async () => {
  const { a, b } = await two()
  a.root['box'] = { n: 0 }
  await b.reach(await a.flush())
  const box = a.root['box'] as Any
  const theirs: Change<Any>[] = []
  const short: Change<Any>[] = []
  const stop = new AbortController()
  a.watch(box, change => { theirs.push(change) }, { local: false })
  a.watch(box, change => { short.push(change) }, { initial: true, signal: stop.signal })
  a.watch(box, () => assert.fail('it was over before it began'), { signal: AbortSignal.abort() })
  box['n'] = 1
  await b.reach(await a.flush())
  b.root['box']['n'] = 2
  await a.reach(await b.flush())
  assert.deepEqual(theirs.map(change => [change.origin, change.by.replica]), [['remote', b.replica]])
  assert.deepEqual(short.map(change => change.origin), ['local', 'local', 'remote'])
  const version = await theirs[0]!.version()
  await b.reach(version)
  stop.abort()
  box['n'] = 3
  delete a.root['box']
  await a.flush()
  assert.equal(short.length, 3)
  assert.deepEqual(theirs.map(change => change.detached), [false, true])
  assert.throws(() => a.watch(box, () => {}), { code: 'ERR_DELETED' })
})

test('watching an expression: at once, by its own equality, and over what has to be loaded', async () => {
  const { a, b } = await two()
  a.root['job'] = a.alloc({ done: false, tries: 0 })
  await b.reach(await a.flush())
  const heard: unknown[] = []
  const parity: unknown[] = []
  const done: unknown[] = []
  const stop = b.watch(() => b.root['n'] as number | undefined, (now, before) => { heard.push([now, before]) }, { initial: true })
  b.watch(() => (b.root['n'] ?? 0) as number, now => { parity.push(now) }, { equals: (x, y) => x % 2 === y % 2 })
  b.watch(() => b.root['n'] === undefined ? undefined : (b.root['job'] as Ref<Any>).value['done'] as boolean, now => { done.push(now) })
  for (const n of [2, 4, 5]) {
    a.root['n'] = n
    await b.reach(await a.flush())
  }
  assert.deepEqual(heard, [[undefined, undefined], [2, undefined], [4, 2], [5, 4]])
  assert.deepEqual(parity, [5])
  await until(() => done.length === 1)
  ;(a.root['job'] as Ref<Any>).value['done'] = true
  await b.reach(await a.flush())
  assert.deepEqual(done, [false, true])
  stop[Symbol.dispose]()
  b.root['n'] = 6
  await b.flush()
  assert.equal(heard.length, 4)
})

test('changes(): the latest only, too many, a signal, and the end of what it follows', async () => {
  const { a } = await two()
  a.root['box'] = { n: 0 }
  await a.flush()
  const box = a.root['box'] as Any
  const write = async (): Promise<void> => {
    for (let n = 1; n <= 3; n++) {
      box['n'] = n
      await a.flush()
    }
  }
  const latest = a.changes(box, { buffer: 'latest' })
  const few = a.changes(box, { buffer: 2 })
  const stop = new AbortController()
  const stopped = a.changes(box, { signal: stop.signal })
  const all = a.changes(box)
  await write()
  assert.deepEqual((await latest.next()).value.patches, [{ op: 'set', path: ['n'], value: 3, before: 2 }])
  await assert.rejects(few.next(), { code: 'ERR_OVER_BUDGET' })
  assert.deepEqual(await few.next(), { value: undefined, done: true })
  stop.abort()
  const left: unknown[] = []
  for await (const change of stopped) left.push(change)
  assert.equal(left.length, 3)
  const waiting = latest.next()
  delete a.root['box']
  await a.flush()
  assert.equal((await waiting).value.detached, true)
  assert.equal((await latest.next()).done, true)
  const told: boolean[] = []
  for await (const change of all) told.push(change.detached)
  assert.deepEqual(told, [false, false, false, true])
  const other = a.changes(a.root)
  const never = other.next()
  await other[Symbol.asyncDispose]()
  assert.deepEqual(await never, { value: undefined, done: true })
})

test('version() covers what was written and seen, and reach() waits for it', async () => {
  const { relay, a, b } = await two()
  const c = await openOn<Any>(relay)
  a.root['a'] = 1
  await b.reach(await a.flush())
  b.root['b'] = b.root['a'] + 1
  const version = await b.version()
  assert.equal(typeof version, 'string')
  await c.reach(String(version))
  assert.deepEqual(snapshot(c.root), { a: 1, b: 2 })
  assert.equal(b.status.unsaved, 0)
  relay.silent = true
  a.root['late'] = true
  await assert.rejects(a.version({ timeoutMs: 30 }), { code: 'ERR_TIMEOUT', retryable: true })
})

test('T1, T3: reach() of what is no version is a TypeError, and one of a log that is not this one any more is ERR_VERSION_LOST', async () => {
  const { a } = await two()
  a.root['a'] = 1
  const version = await a.flush()
  for (const bad of ['', 'version', '0'.repeat(44), version.slice(4), `${version}AAAA`]) await assert.rejects(a.reach(bad), TypeError)
  // A format byte, two epochs of twelve bytes, a position: a byte of the lineage, or of the epoch, is another one.
  for (const at of [12, 24]) {
    const bytes = Buffer.from(version, 'base64url')
    bytes[at]! ^= 1
    await assert.rejects(a.reach(bytes.toString('base64url')), { name: 'HeapError', code: 'ERR_VERSION_LOST', retryable: false })
  }
  await a.reach(version)
})

test('run() loads as often as it has to, lets an own error through, and ends with its wait', async () => {
  const { relay, a, b } = await two()
  const inner = a.alloc({ n: 1 })
  a.root['outer'] = a.alloc({ inner })
  await b.reach(await a.flush())
  let tries = 0
  const found = await b.run(() => {
    tries += 1
    const it = (b.root['outer'] as Ref<Any>).value['inner'] as Ref<Any>
    it.value['n'] = 2
    return it.id
  }, { label: 'deep' })
  assert.equal(found, inner.id)
  assert.equal(tries, 3)
  await a.reach(await b.flush())
  assert.equal(inner.value['n'], 2)
  assert.equal(relay.log.at(-1)!.label, 'deep')
  const mine = new Error('mine')
  await assert.rejects(b.run(() => { b.root['x'] = 1; throw mine }), error => error === mine)
  assert.equal(b.root['x'], undefined)
  relay.down = true
  relay.cut()
  const away = b.ref<Any>('coheap:' + 'A'.repeat(22))
  await assert.rejects(b.run(() => away.value['n'] as number, { timeoutMs: 20 }), { code: 'ERR_TIMEOUT' })
  await assert.rejects(b.run(() => away.value['n'] as number, { signal: AbortSignal.abort(mine) }), error => error === mine)
  relay.down = false
})

test('S25: not loaded, never existed, deleted, quarantined and a Ref of elsewhere are told apart', async () => {
  const { relay, a, b } = await two()
  const [plain, deleted, broken] = [a.alloc({ n: 1 }), a.alloc({ n: 2 }), a.alloc({ n: 3 })]
  await b.reach(await a.flush())
  relay.statuses.set(deleted.id.slice(7), 2)
  relay.statuses.set(broken.id.slice(7), 3)
  const told: string[] = []
  b.addEventListener('quarantine', event => { told.push(event.ref.id) })
  expecting(b, { quarantined: 1 })
  const here = (ref: Ref<object>): Ref<Any> => b.ref<Any>(ref.id)
  assert.equal(here(plain).peek(), undefined)
  assert.throws(() => here(plain).value, { code: 'ERR_NOT_LOADED', retryable: true })
  await assert.rejects(here(deleted).load(), { code: 'ERR_DELETED', retryable: false })
  await assert.rejects(here(broken).load(), { code: 'ERR_QUARANTINED', retryable: false })
  await assert.rejects(b.ref('coheap:' + 'A'.repeat(22)).load(), { code: 'ERR_NOT_FOUND', retryable: false })
  for (const [ref, code] of [[deleted, 'ERR_DELETED'], [broken, 'ERR_QUARANTINED']] as const) {
    assert.throws(() => here(ref).peek(), { code })
    assert.throws(() => here(ref).value, { code })
  }
  assert.deepEqual(told, [broken.id])
  assert.equal((await here(plain).load())['n'], 1)
  await assert.rejects(b.load([plain]), TypeError)
  assert.throws(() => b.pin(plain), TypeError)
  assert.equal(here(plain).heap, 'h')
  assert.equal(here(plain), b.ref(plain.id))
  assert.deepEqual(JSON.parse(JSON.stringify({ plain })), { plain: { $ref: plain.id } })
  assert.match(inspect(plain), /coheap:/)
})

test('evict() lets go of what nobody holds or pins, and a load brings it back', async () => {
  const world = new FixedWorld(1)
  try {
    const { a, b } = await two()
    const refs = Array.from({ length: 4 }, (_, n) => a.alloc({ n, data: 'x'.repeat(100) }))
    a.root['refs'] = refs
    await b.reach(await a.flush())
    const theirs = [...b.root['refs'] as Ref<Any>[]]
    await b.load(theirs)
    assert.equal(b.status.segments, 5)
    const evicted: string[] = []
    b.addEventListener('evicted', event => { evicted.push(...event.refs.map(ref => ref.id)) })
    const pin = b.pin(theirs[0]!)
    const held = b.watch(theirs[1]!, () => {})
    world.collect()
    const live = theirs[2]!.value
    assert.equal((await b.evict({ toBytes: 0 })).segments, 4)
    assert.deepEqual(evicted, [theirs[3]!.id])
    assert.equal(theirs[3]!.peek(), undefined)
    assert.equal(theirs[2]!.value, live)
    assert.equal((await theirs[3]!.load())['n'], 3)
    pin[Symbol.dispose]()
    held[Symbol.dispose]()
    world.collect()
    assert.equal((await b.evict()).segments, 1)
    assert.equal(b.stats().evictions, 5)
    assert.equal(b.stats().loads, 6)
    await b.run(() => { for (const ref of theirs) ref.value['seen'] = true })
    await a.reach(await b.flush())
    assert.ok(refs.every(ref => (ref.value as Any)['seen'] === true))
  } finally {
    world.end()
  }
})

test('stats() counts commits and deltas, and says where the bytes are', async () => {
  const { a, b } = await two()
  const before = [a.stats(), b.stats()] as const
  a.transact(() => { a.root['x'] = 1; a.alloc({ y: 1 }) })
  assert.ok(a.stats().bytes.queued > 0)
  await b.reach(await a.flush())
  const [mine, theirs] = [a.stats(), b.stats()]
  assert.equal(mine.commits - before[0].commits, 1)
  assert.equal(mine.deltasOut - before[0].deltasOut, 2)
  assert.equal(mine.deltasIn, before[0].deltasIn)
  assert.equal(theirs.deltasIn - before[1].deltasIn, 1)
  assert.equal(theirs.commits, before[1].commits)
  assert.ok(mine.bytesOut > before[0].bytesOut && theirs.bytesIn > before[1].bytesIn)
  assert.equal(mine.bytes.queued, 0)
  assert.equal(mine.bytes.budget, 256 * 1024 * 1024)
  for (const bytes of [mine.bytes.live, mine.bytes.wasm, mine.bytes.mirrors, mine.bytes.pinned]) assert.ok(bytes > 0)
})

test('presence: updates, limits, what a disconnect takes and a reconnect brings back', async () => {
  const { relay, a, b } = await two()
  const [pa, pb] = [a.presence<{ x?: number; y?: number }>('desk'), b.presence<{ x?: number; y?: number }>('desk')]
  assert.equal(a.presence('desk'), pa)
  let told = 0
  const stop = pb.watch(() => { told += 1 })
  pa.set({ x: 1 })
  pa.update({ y: 2 })
  assert.deepEqual(pa.members.get(pa.me)!.state, { x: 1, y: 2 })
  await until(() => pb.members.get(a.replica)?.state.y === 2)
  assert.deepEqual(pb.members.get(a.replica)!.state, { x: 1, y: 2 })
  assert.ok(Object.isFrozen(pb.members.get(a.replica)!.state))
  assert.throws(() => pa.set(null as never), TypeError)
  assert.throws(() => pa.set({ data: 'x'.repeat(20_000) } as never), { code: 'ERR_TOO_LARGE' })
  relay.down = true
  for (const connection of [...relay.connections]) if (connection.hello!.replica === a.replica) connection.cut(1006)
  await until(() => !pb.members.has(a.replica))
  relay.down = false
  await until(() => pb.members.get(a.replica)?.state.x === 1)
  stop[Symbol.dispose]()
  const count = told
  assert.ok(count >= 3)
  pa.clear()
  assert.equal(pa.members.has(pa.me), false)
  await until(() => !pb.members.has(a.replica))
  assert.equal(told, count)
})

test('listeners can be taken away, and a heap says what it is without its token', async () => {
  const relay = new FakeRelay()
  const a = await openOn<Any>(relay, { token: 'secret-token' })
  let told = 0
  const listener = (): void => { told += 1 }
  a.addEventListener('status', listener)
  a.root['x'] = 1
  await a.flush()
  await sleep(1)
  assert.ok(told > 0)
  const count = told
  a.removeEventListener('status', listener)
  a.root['x'] = 2
  await a.flush()
  await sleep(1)
  assert.equal(told, count)
  for (const text of [inspect(a, { depth: 10 }), String(a)]) {
    assert.match(text, /^Heap.*h.*online/)
    assert.doesNotMatch(text, /secret/)
  }
  assert.equal(a.unref(), a)
})

test('await using closes, and closing twice is closing once', async () => {
  const relay = new FakeRelay()
  const a = await openOn<Any>(relay)
  a.root['x'] = 1
  assertClean(a)
  await a[Symbol.asyncDispose]()
  assert.equal(a.status.connection, 'closed')
  assert.equal(relay.log.length, 1)
  assert.equal(a.close(), a.close())
  const b = await openOn<Any>(relay)
  assert.equal(b.root['x'], 1)
  await closeClean(b)
})

test('errors are HeapErrors: a code, whether to try again, frozen details, and a cause', () => {
  const cause = new Error('below')
  const error = new HeapError('ERR_TIMEOUT', 'too long', { details: { ms: 5 }, cause })
  assert.ok(error instanceof Error)
  assert.deepEqual([error.name, error.code, error.retryable, error.message, error.cause], ['HeapError', 'ERR_TIMEOUT', true, 'too long', cause])
  assert.throws(() => { (error.details as Any)['ms'] = 6 }, TypeError)
  assert.equal(new HeapError('ERR_DELETED', 'gone').retryable, false)
  assert.equal(new HeapError('ERR_DELETED', 'gone', { retryable: true }).retryable, true)
})
