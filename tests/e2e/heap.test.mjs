// Real Node processes, the packed package, the release relay. Goal: what the README promises, through kills.
import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import path from 'node:path'
import { after, before, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { HeapError, counter, open } from 'coheap'
import { closeClean } from './clean.mjs'
import { Relay, startProcess } from './relay.mjs'

const relay = new Relay()

/** A heap that is closed, with nothing refused, quarantined or rebuilt, when the test is over. */
async function opening(t, url, options) {
  const heap = await open(url, options)
  t.after(() => closeClean(heap))
  return heap
}

/** Until something is so; fails after 20 seconds. */
async function until(so) {
  for (const end = Date.now() + 20_000; !so(); await sleep(5)) assert.ok(Date.now() < end, `never: ${so}`)
}

before(() => relay.start())
after(() => relay.dispose())

test('p1: what four processes write at once is there in all of them', async (t) => {
  const url = relay.url('together')
  const program = `
    for (let i = 0; i < 50; i++) heap.transact(() => {
      heap.root.all ??= {}
      heap.root.all[args.name + i] = i
      heap.root.count ??= coheap.counter()
      heap.root.count.add(1)
    })
    tell(await heap.flush({ timeoutMs: 20_000 }))
    for (const end = Date.now() + 20_000; !heap.root.compare; await new Promise((resolve) => setTimeout(resolve, 5))) {
      if (Date.now() > end) throw new Error('nobody asks what it sees')
    }
    await heap.sync({ timeoutMs: 20_000 })
    tell({ ...heap.root, all: { ...heap.root.all }, count: heap.root.count.value })`
  const names = ['a', 'b', 'c', 'd']
  const workers = names.map((name) => startProcess(url, program, { name }))
  await until(() => workers.every((worker) => worker.told.length > 0))
  const heap = await opening(t, url)
  heap.root.compare = true
  await heap.flush({ timeoutMs: 20_000 })
  await until(() => workers.every((worker) => worker.told.length > 1))
  for (const worker of workers) assert.equal(await worker.exited, 0)
  await heap.sync({ timeoutMs: 20_000 })
  const all = Object.fromEntries(names.flatMap((name) => Array.from({ length: 50 }, (_, i) => [name + i, i])))
  const expected = { all, count: 200, compare: true }
  for (const worker of workers) assert.deepEqual(worker.told[1], expected)
  assert.deepEqual({ ...heap.root, all: { ...heap.root.all }, count: heap.root.count.value }, expected)
})

test('p4: a version of one process is reached by another', async (t) => {
  const a = await opening(t, relay.url('versions'))
  const b = await opening(t, relay.url('versions'))
  for (let i = 0; i < 20; i++) {
    a.root.n = i
    await b.reach(await a.flush())
    assert.equal(b.root.n, i)
  }
})

test('p5: what flush() acknowledged is there after the relay is killed', async (t) => {
  const url = relay.url('killed')
  const heap = await opening(t, url, { initial: { n: counter() } })
  for (let i = 0; i < 30; i++) heap.root[`k${i}`] = i
  heap.root.n.add(30)
  const version = await heap.flush()
  await relay.stop('SIGKILL')
  heap.root.offline = true
  heap.root.n.add(1)
  await relay.start()
  await heap.flush({ timeoutMs: 20_000 })
  const fresh = await opening(t, url)
  await fresh.reach(version)
  await fresh.sync()
  assert.equal(fresh.root.n.value, 31)
  assert.equal(fresh.root.offline, true)
  for (let i = 0; i < 30; i++) assert.equal(fresh.root[`k${i}`], i)
})

test('p6: commits in flight at a kill count once', async (t) => {
  const url = relay.url('once')
  const heap = await opening(t, url, { initial: { n: counter() } })
  for (let round = 0; round < 3; round++) {
    const flushing = []
    for (let i = 0; i < 100; i++) {
      heap.transact(() => heap.root.n.add(1))
      if (i === 50) setImmediate(() => relay.stop('SIGKILL'))
      if (i % 10 === 0) await sleep(1)
    }
    await relay.stop('SIGKILL')
    await relay.start()
    await heap.flush({ timeoutMs: 20_000 })
  }
  const fresh = await opening(t, url)
  await fresh.sync()
  assert.equal(fresh.root.n.value, 300)
  assert.equal(heap.root.n.value, 300)
})

test('p3: a transaction over several segments is seen whole or not at all', async (t) => {
  const url = relay.url('whole')
  const writer = await opening(t, url)
  const refs = Array.from({ length: 4 }, () => writer.alloc({ n: 0 }))
  writer.root.refs = refs
  await writer.flush()
  const reader = await opening(t, url)
  await reader.sync()
  const seen = await reader.load(reader.root.refs)
  const torn = []
  reader.watch(reader.root.refs[0], () => {
    const values = seen.map((object) => object.n)
    if (new Set(values).size !== 1) torn.push(values)
  })
  for (let i = 1; i <= 200; i++) writer.transact(() => { for (const ref of refs) ref.value.n = i })
  await reader.reach(await writer.flush())
  assert.deepEqual(seen.map((object) => object.n), [200, 200, 200, 200])
  assert.deepEqual(torn, [])
})

test('l06, p3, p8: what is here as bytes follows what another process writes, through a killed relay, and is read without it', async (t) => {
  const url = relay.url('at-rest')
  const writer = await opening(t, url)
  const refs = Array.from({ length: 100 }, (_, i) => writer.alloc({ i, n: 0, data: 'x'.repeat(2000) }))
  const version = await writer.flush({ timeoutMs: 20_000 })
  const reader = await opening(t, url, { budget: '1mb' })
  await reader.reach(version, { timeoutMs: 20_000 })
  const theirs = refs.map((ref) => reader.ref(ref.id))
  for (const ref of theirs) await ref.load()
  const packed = () => reader.stats().segments.filter((segment) => segment.residence === 'packed')
  // What was loaded is held until the collector has been.
  await until(() => packed().length > 40)
  const here = new Set(reader.stats().segments.map((segment) => segment.ref))
  const kept = theirs.filter((ref) => here.has(ref.id))
  const write = (n) => writer.transact(() => { for (const ref of refs) ref.value.n = n })
  write(1)
  await relay.stop('SIGKILL')
  write(2)
  await relay.start()
  await reader.reach(await writer.flush({ timeoutMs: 20_000 }), { timeoutMs: 20_000 })
  const bare = new Set(packed().filter((segment) => !segment.mirror).map((segment) => segment.ref))
  assert.ok(bare.size > 20, `${bare.size} are bytes alone`)
  await relay.stop('SIGKILL')
  await until(() => reader.status.connection !== 'online')
  const { loads } = reader.stats()
  const seen = kept.filter((ref) => bare.has(ref.id)).map((ref) => ref.peek())
  assert.ok(seen.length > 20 && seen.every((each) => each.n === 2 && each.data.length === 2000))
  assert.equal(reader.stats().loads, loads)
  await relay.start()
})

test('s27: every partition is worked on once, also when a worker is killed', async (t) => {
  const url = relay.url('shared')
  const heap = await opening(t, url, { initial: { done: counter() } })
  const map = heap.map('items', { partitions: 64 })
  await map.setMany(Array.from({ length: 640 }, (_, i) => [`k${i}`, { n: i }]))
  await heap.flush()
  const program = `
    const map = heap.map('items', { partitions: 64 })
    for await (const part of map.share({ group: 'g', run: 'r' })) {
      let sum = 0
      for (const [, item] of part.entries()) sum += item.n
      await new Promise((resolve) => setTimeout(resolve, 10))
      try {
        heap.transact(() => { heap.root['p' + part.index] = sum; heap.root.done.add(1); part.done() })
        tell(part.index)
      } catch (error) { if (error.code !== 'ERR_CONFLICT') throw error }
    }`
  const workers = [0, 1, 2].map(() => startProcess(url, program))
  await until(() => workers[0].told.length >= 5)
  workers[0].child.kill('SIGKILL')
  for (const worker of workers.slice(1)) assert.equal(await worker.exited, 0)
  await heap.sync()
  assert.equal(heap.root.done.value, 64)
  let sum = 0
  for (let i = 0; i < 64; i++) sum += heap.root[`p${i}`]
  assert.equal(sum, (639 * 640) / 2)
})

test('a heap that must exist is not made', async (t) => {
  await assert.rejects(open(relay.url('nobody-made-this'), { create: false, timeoutMs: 5000 }), (error) => error instanceof HeapError && error.code === 'ERR_NOT_FOUND')
})

test('a relay that stops cleanly exits with 0 and closes with 1012, and its heaps go on when it is back', async (t) => {
  const heap = await opening(t, relay.url('stopping'))
  heap.root.before = 1
  await heap.flush()
  assert.equal(await relay.stop('SIGTERM'), 0)
  heap.root.during = 2
  await relay.start()
  await heap.flush({ timeoutMs: 20_000 })
  const fresh = await opening(t, relay.url('stopping'))
  assert.deepEqual({ ...fresh.root }, { before: 1, during: 2 })
})

test('s27: two loops of one process share the partitions, too', async (t) => {
  const heap = await opening(t, relay.url('loops'), { initial: { n: counter() } })
  const map = heap.map('items', { partitions: 16 })
  await map.setMany(Array.from({ length: 64 }, (_, i) => [`k${i}`, { n: i }]))
  await heap.flush()
  for (const options of [{ group: 'g', run: 'r' }, { group: 'h' }]) {
    const handed = []
    const loop = async () => {
      for await (const part of map.share(options)) {
        handed.push(part.index)
        await sleep(2)
        heap.transact(() => { heap.root.n.add(1); part.done() })
      }
    }
    await Promise.all([loop(), loop()])
    await heap.flush()
    assert.deepEqual(handed.sort((a, b) => a - b), Array.from({ length: 16 }, (_, i) => i))
  }
  assert.equal(heap.root.n.value, 32)
  const ref = heap.alloc({ done: false })
  const first = await heap.claim(ref)
  assert.equal(await heap.claim(ref), undefined)
  first.release()
  const again = await heap.claim(ref)
  assert.ok(again)
  again.release()
})

test('s26: writers of many entries at once wait for the relay, all of them', async (t) => {
  const heap = await opening(t, relay.url('writers'), { budget: '2mb' })
  const map = heap.map('items', { partitions: 16 })
  const write = (name) => map.setMany(Array.from({ length: 3000 }, (_, i) => [`${name}${i}`, { s: 'x'.repeat(200) }]))
  await Promise.all(['a', 'b', 'c', 'd'].map(write))
  await heap.flush()
  assert.equal(await map.size(), 12_000)
})

test('an open heap keeps its process, and one that is unreferenced or closed does not', async () => {
  const url = relay.url('keeping')
  const open = startProcess(url, `heap.root.a = 1; await heap.flush(); tell('open'); process.on('exit', () => tell('ends')); await new Promise(() => {})`)
  const free = startProcess(url, `heap.root.b = 1; await heap.flush(); heap.unref(); await new Promise(() => {})`)
  // 13: nothing keeps the process although its program waits for something.
  assert.equal(await free.exited, 13)
  await until(() => open.told.length > 0)
  await sleep(300)
  assert.deepEqual(open.told, ['open'])
  assert.equal(open.child.exitCode, null)
  open.child.kill('SIGKILL')
  assert.equal(await open.exited, 'SIGKILL')
})

test('a claim is of who is there: it ends with the process that had it', async (t) => {
  const url = relay.url('there')
  const heap = await opening(t, url)
  const job = heap.alloc({ done: false })
  heap.root.job = job
  await heap.flush()
  const other = startProcess(url, `
    tell(await heap.claim(heap.root.job) !== undefined)
    await new Promise(() => {})`)
  await until(() => other.told.length > 0)
  assert.deepEqual(other.told, [true])
  assert.equal(await heap.claim(job), undefined)
  other.child.kill('SIGKILL')
  await other.exited
  let claim
  for (const end = Date.now() + 20_000; (claim = await heap.claim(job)) === undefined; await sleep(20)) assert.ok(Date.now() < end)
  claim.release()
})

test('a token file decides who may write', async (t) => {
  const guarded = new Relay()
  t.after(() => guarded.dispose())
  const file = path.join(guarded.data, 'tokens')
  writeFileSync(file, 'token-of-ann ann rw\ntoken-of-bob bob ro\n')
  await guarded.start('--token-file', file)
  const url = guarded.url('guarded')
  await assert.rejects(open(url, { token: 'token-of-eve', timeoutMs: 5000 }), (error) => error.code === 'ERR_AUTH' && !error.retryable)
  const reasons = []
  const ann = await opening(t, url, { token: ({ reason }) => { reasons.push(reason); return 'token-of-ann' } })
  ann.root.x = 1
  await ann.flush()
  assert.deepEqual(reasons, ['connect'])
  const bob = await open(url, { token: 'token-of-bob' })
  assert.equal(bob.root.x, 1)
  const refused = []
  bob.addEventListener('refused', (event) => refused.push(event.code))
  bob.root.x = 2
  await assert.rejects(bob.flush(), (error) => error.code === 'ERR_REFUSED' && error.details.code === 'ERR_FORBIDDEN')
  await until(() => bob.root.x === 1)
  assert.deepEqual(refused, ['ERR_FORBIDDEN'])
  assert.equal(bob.stats().refused, 1)
  await bob.close()
})

test('s01: objects near another come with its segment, also after the relay is killed', async (t) => {
  const url = relay.url('near')
  const a = await opening(t, url)
  const home = a.alloc({ kind: 'home' })
  a.root.home = home
  const near = Array.from({ length: 200 }, (_, i) => a.alloc({ i, home, parts: [{ n: i }] }, { near: home }))
  home.value.last = near.at(-1)
  await a.flush()
  await relay.stop('SIGKILL')
  near[7].value.parts[0].n = 'changed'
  await relay.start()
  const version = await a.flush({ timeoutMs: 20_000 })
  const b = await opening(t, url)
  await b.reach(version)
  const theirs = await b.load(near.map((ref) => b.ref(ref.id)))
  assert.equal(b.status.segments, 2)
  assert.deepEqual(theirs.map((live) => live.i), near.map((_, i) => i))
  assert.equal(theirs[7].parts[0].n, 'changed')
  assert.equal(theirs[9].home.value.last, b.ref(near.at(-1).id))
  assert.deepEqual(Object.keys(b.root.home.value), ['kind', 'last'])
})

test('s02: of kinds that differ after an outage, who wrote the loser hears of it', async (t) => {
  const heaps = [await opening(t, relay.url('kinds')), await opening(t, relay.url('kinds'))]
  const told = heaps.map(() => [])
  heaps.forEach((heap, i) => heap.addEventListener('error', (error) => told[i].push(error)))
  heaps[0].root.box = {}
  await heaps[1].reach(await heaps[0].flush())
  await relay.stop('SIGKILL')
  heaps[0].root.box.k = { a: 1 }
  heaps[1].root.box.k = [1]
  await relay.start()
  for (const heap of heaps) await heap.flush({ timeoutMs: 20_000 })
  for (const heap of heaps) await heap.sync({ timeoutMs: 20_000 })
  const list = Array.isArray(heaps[0].root.box.k)
  assert.equal(Array.isArray(heaps[1].root.box.k), list)
  const [winner, loser] = list ? [told[1], told[0]] : [told[0], told[1]]
  assert.deepEqual(winner, [])
  assert.deepEqual(loser.map(({ code, details: { path, lost } }) => ({ code, path, lost })), [{ code: 'ERR_CONFLICT', path: ['box', 'k'], lost: list ? { a: 1 } : [1] }])
})
