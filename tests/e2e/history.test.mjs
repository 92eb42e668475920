// Segments that keep their history, between real processes: those that make them and those that only have the small module.
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { counter, open, snapshot, text } from 'coheap'
import { Relay, startProcess } from './relay.mjs'

const relay = new Relay()

before(() => relay.start())
after(() => relay.dispose())

test('p1, p5: segments with history among others, written by four processes through a killed relay', async () => {
  const url = relay.url('plans')
  const first = await open(url, { initial: { plans: {}, count: counter() } })
  await first.flush()
  const program = `
    const { counter, text } = coheap
    for (let i = 0; i < 20; i++) {
      heap.transact(() => {
        heap.root.plans[args.name + i] = heap.alloc({ by: args.name, notes: text(''), steps: [i], n: counter() }, { history: i % 2 === 0 })
        heap.root.count.add(1)
      })
      const all = await heap.load(Object.values(heap.root.plans))
      heap.transact(() => { for (const plan of all) { plan.n.add(1); plan.steps.push(args.name + i) } })
      tell(all.length)
    }
    await heap.flush({ timeoutMs: 30000 })`
  const workers = ['a', 'b', 'c', 'd'].map((name) => startProcess(url, program, { name }))
  while (first.root.count.value < 20) await first.sync({ timeoutMs: 20_000 })
  await relay.stop('SIGKILL')
  await relay.start()
  for (const worker of workers) assert.equal(await worker.exited, 0)
  await first.sync({ timeoutMs: 20_000 })
  assert.equal(first.root.count.value, 80)
  const plans = await first.load(Object.values(first.root.plans), { timeoutMs: 20_000 })
  assert.equal(plans.length, 80)
  const adds = workers.flatMap((worker) => worker.told).reduce((sum, n) => sum + n, 0)
  assert.equal(plans.reduce((sum, plan) => sum + plan.n.value, 0), adds)
  for (const plan of plans) assert.equal(plan.steps.length, plan.n.value + 1)

  // Another process sees the same, and so does one after another start of the relay.
  await relay.stop()
  await relay.start()
  const second = await open(url)
  const same = await second.load(Object.values(second.root.plans), { timeoutMs: 20_000 })
  assert.deepEqual(same.map((plan) => snapshot(plan)), plans.map((plan) => snapshot(plan)))
  for (const heap of [first, second]) {
    const { refused, quarantined, rebuilds } = heap.stats()
    assert.deepEqual({ refused, quarantined, rebuilds }, { refused: 0, quarantined: 0, rebuilds: 0 })
    await heap.close()
  }
})

test('claims outlast the move into the full module', async () => {
  const url = relay.url('claims')
  const a = await open(url, { initial: { job: null } })
  a.root.job = a.alloc({ state: 'open' })
  await a.flush()
  const claim = await a.claim(a.root.job)
  a.transact(() => { a.root.log = a.alloc({ lines: [], t: text('') }, { history: true }) })
  await a.flush({ timeoutMs: 20_000 })
  await a.sync()
  assert.equal(claim.lost.aborted, false)
  const b = await open(url)
  assert.equal(await b.claim(b.root.job), undefined)
  claim.release()
  assert.notEqual(await b.claim(b.root.job), undefined)
  await a.close()
  await b.close()
})
