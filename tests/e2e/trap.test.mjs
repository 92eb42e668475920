// Real processes whose wasm runs out of memory: the allocator aborts, the instance traps, and nothing is lost or counted twice.
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { counter, open } from 'coheap'
import { closeClean } from './clean.mjs'
import { Relay, startProcess } from './relay.mjs'

/** Enough for the heap and not for its largest commits: a few MiB. */
const PAGES = 140

const relay = new Relay()
before(() => relay.start())
after(() => relay.dispose())

const program = `
  const events = []
  heap.addEventListener('error', (error) => events.push([error.code, error.details.during]))
  let [added, undone] = [0, 0]
  for (let i = 0; i < 40; i++) {
    const large = i % 10 === 5
    try {
      heap.transact(() => {
        heap.root.count.add(1)
        heap.root.all[args.name + i] = i
        if (large) for (let part = 0; part < 4; part++) heap.root['large ' + args.name + part] = String(part).repeat(240_000)
      })
      added++
    } catch (error) {
      if (error.code !== 'ERR_ENGINE' || error.details.during !== 'commit') throw error
      undone++
    }
    if (i % 3 === 0) await new Promise((resolve) => setTimeout(resolve, 5))
  }
  await heap.flush()
  await heap.sync()
  const rebuilds = heap.stats().rebuilds
  tell({ added, undone, events, rebuilds })
  args.expected.rebuilds = rebuilds`

test('p5, p8: processes that run out of wasm memory go on, and what they wrote counts once', async (t) => {
  const url = relay.url('small')
  const heap = await open(url, { initial: { count: counter(), all: {} } })
  t.after(() => closeClean(heap))
  await heap.flush()
  const small = ['a', 'b'].map((name) => startProcess(url, program, { name, pages: PAGES, expected: {} }))
  const roomy = startProcess(url, program.replaceAll('large)', 'false)'), { name: 'c', expected: {} })
  for (const worker of [...small, roomy]) assert.equal(await worker.exited, 0)
  const told = small.map((worker) => worker.told[0])
  for (const { undone, events, rebuilds } of told) {
    assert.ok(undone > 0, 'the memory sufficed for everything')
    assert.equal(rebuilds, events.length)
    for (const event of events) assert.equal(event[0], 'ERR_ENGINE')
  }
  await heap.sync()
  const added = [...told, roomy.told[0]].reduce((sum, each) => sum + each.added, 0)
  assert.equal(heap.root.count.value, added)
  assert.equal(Object.keys(heap.root.all).length, added)
})
