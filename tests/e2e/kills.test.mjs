// The relay is killed over and over under the load of four Node processes. Goal: every write whose flush() resolved is
// there, every counter is exact, a transaction over two segments is never seen in half, and all converge: the four, who watched
// and who comes last see the same, each by itself.
//
// COHEAP_KILLS says how often (10); COHEAP_SEED decides when.
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { counter, open } from 'coheap'
import { closeClean } from './clean.mjs'
import { Relay, startProcess } from './relay.mjs'

const cycles = Number(process.env.COHEAP_KILLS ?? 10)
const seed = Number(process.env.COHEAP_SEED ?? Date.now() % 1_000_000)
const names = ['a', 'b', 'c', 'd']
const relay = new Relay()

/** Numbers in [0, below) from the seed (mulberry32). */
function draws(state) {
  return (below) => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) % below
  }
}

/** Everything that a heap shows once it has what the relay has: the counter, the writes of each worker, and all logs. */
async function seen(heap) {
  await heap.sync({ timeoutMs: 20_000 })
  const { n, by, logs, stop, compare } = heap.root
  const all = { n: n.value, by: { ...by }, logs: {}, stop, compare }
  for (const name of Object.keys(logs)) {
    const live = await heap.load([...logs[name]], { timeoutMs: 20_000 })
    all.logs[name] = live.map((log) => ({ ...log }))
  }
  return all
}

/**
 * What a worker does until it is told to stop: each write is one transaction over two segments, root and a log of its own (a
 * new one every 500 writes), with one addition to the counter that everybody adds to. After a flush it tells how far it is.
 * When it is told that all have come to their end, it tells what it sees.
 */
const worker = `
  ${seen}
  let log, flushing = false
  for (let i = 0; !heap.root.stop; i++) {
    heap.transact(() => {
      if (i % 500 === 0) heap.root.logs[args.name].push(log = heap.alloc({}))
      log.value['k' + i] = i
      heap.root.by[args.name] = i + 1
      heap.root.n.add(1)
    })
    if (!flushing && i % 5 === 0) {
      flushing = true
      heap.flush({ timeoutMs: 60_000 }).then(() => { flushing = false; tell({ flushed: i + 1 }) })
    }
    await new Promise((resolve) => setTimeout(resolve, 2))
  }
  await heap.flush({ timeoutMs: 60_000 })
  tell({ flushed: heap.root.by[args.name], ended: true })
  for (const end = Date.now() + 60_000; !heap.root.compare;) {
    if (Date.now() > end) throw new Error('nobody asks what it sees')
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
  tell({ flushed: heap.root.by[args.name], seen: await seen(heap) })`

/** Until something is so of all workers; fails after a minute, and when one of them is gone before. */
async function untilAll(workers, so) {
  for (const end = Date.now() + 60_000; !workers.every(so); await sleep(5)) {
    assert.ok(Date.now() < end, `never: ${so}`)
    assert.ok(workers.every((one) => so(one) || (one.child.exitCode ?? one.child.signalCode) === null), 'a worker is gone')
  }
}

/** How many additions a heap shows, and how many writes: equal in every state that anybody may see. */
function totals(root) {
  return [root.n.value, names.reduce((sum, name) => sum + (root.by[name] ?? 0), 0)]
}

/** Every log of a worker, read whole: exactly the writes that root says there are. The worker goes on meanwhile. */
async function compareLogs(heap, name) {
  let logs = []
  while (logs.length !== heap.root.logs[name].length) logs = await heap.load([...heap.root.logs[name]])
  const written = heap.root.by[name] ?? 0
  const keys = logs.flatMap((log) => Object.entries(log))
  assert.equal(keys.length, written, `writes of ${name}`)
  for (const [key, value] of keys) assert.equal(key, `k${value}`)
  return written
}

before(() => relay.start())
after(() => relay.dispose())

test(`p5, p6, p3: ${cycles} kills of the relay under load (seed ${seed})`, { timeout: 60_000 + cycles * 5_000 }, async (t) => {
  const below = draws(seed)
  const url = relay.url('kills')
  const initial = { n: counter(), by: {}, logs: Object.fromEntries(names.map((name) => [name, []])), stop: false, compare: false }
  const watcher = await open(url, { initial })
  t.after(() => watcher.close())
  await watcher.flush()
  const torn = []
  watcher.watch(watcher.root, () => {
    const [added, written] = totals(watcher.root)
    if (added !== written) torn.push([added, written])
  }, { deep: true })
  const workers = names.map((name) => startProcess(url, worker, { name }))
  const flushed = (one) => workers[one].told.at(-1)?.flushed ?? 0
  for (let cycle = 0; cycle < cycles; cycle++) {
    await sleep(20 + below(180))
    await relay.stop('SIGKILL')
    const promised = names.map((_, one) => flushed(one))
    await sleep(below(50))
    await relay.start()
    // Somebody who was never there before sees all that was promised, whole.
    const fresh = await open(url)
    t.after(() => fresh.close())
    await fresh.sync({ timeoutMs: 20_000 })
    const [added, written] = totals(fresh.root)
    assert.equal(added, written, `cycle ${cycle}: a counter is not exact`)
    names.forEach((name, one) => assert.ok((fresh.root.by[name] ?? 0) >= promised[one], `cycle ${cycle}: ${name} was promised ${promised[one]} writes, ${fresh.root.by[name]} are there`))
    if (cycle % 10 === 9) for (const name of names) await compareLogs(fresh, name)
    await closeClean(fresh)
  }
  watcher.root.stop = true
  await watcher.flush({ timeoutMs: 20_000 })
  await untilAll(workers, (one) => one.told.some((message) => message.ended))
  watcher.root.compare = true
  await watcher.flush({ timeoutMs: 20_000 })
  await untilAll(workers, (one) => one.told.some((message) => message.seen))
  for (const one of workers) assert.equal(await one.exited, 0)
  const all = await seen(watcher)
  for (const [one, name] of names.entries()) assert.deepEqual(workers[one].told.find((message) => message.seen).seen, all, `what ${name} sees`)
  const last = await open(url)
  t.after(() => last.close())
  assert.deepEqual(await seen(last), all)
  await closeClean(last)
  let sum = 0
  for (const [one, name] of names.entries()) {
    const written = await compareLogs(watcher, name)
    assert.equal(written, flushed(one), `${name} knows of more or less than there is`)
    sum += written
  }
  assert.equal(watcher.root.n.value, sum)
  assert.ok(sum >= cycles * 20, `there was load: ${sum} writes`)
  assert.deepEqual(torn, [], 'P3')
  t.diagnostic(`${cycles} kills, ${sum} writes of four processes`)
  await closeClean(watcher)
})
