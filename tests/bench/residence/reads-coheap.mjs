import { open, snapshot } from 'coheap'
import { args, expect, tell } from './child.mjs'

const READS = 10_000_000
const heap = await open(args.url)
const live = heap.root.keys
const frozen = snapshot(live)
const names = Object.keys(frozen)
const plain = {}
for (const name of names) plain[name] = frozen[name]
expect(names.length, args.count)

// Once each to get warm, then in turns; the least of five counts.
const times = { live: [], frozen: [], plain: [], one: [], plainOne: [] }
for (let turn = 0; turn < 6; turn++) {
  const measured = { plain: inTurn(plain), frozen: inTurn(frozen), live: inTurn(live), plainOne: one(plain), one: one(live) }
  if (turn > 0) for (const [name, time] of Object.entries(measured)) times[name].push(time)
}
const least = Object.fromEntries(Object.entries(times).map(([name, all]) => [name, Math.min(...all)]))
tell({
  'live, times a plain object': least.live / least.plain,
  'snapshot, times a plain object': least.frozen / least.plain,
  'one property, live, times a plain object': least.one / least.plainOne,
  'a read of a plain object': (least.plain * 1e6) / READS,
})
await heap.close()

function inTurn(object) {
  const begun = performance.now()
  let sum = 0
  for (let n = 0, at = 0; n < READS; n++) {
    sum += object[names[at]]
    if (++at === names.length) at = 0
  }
  const time = performance.now() - begun
  expect(sum, (READS / names.length) * ((names.length * (names.length - 1)) / 2))
  return time
}

function one(object) {
  const begun = performance.now()
  let sum = 0
  for (let n = 0; n < READS; n++) sum += object.k1
  const time = performance.now() - begun
  expect(sum, READS)
  return time
}
