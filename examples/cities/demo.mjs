// The main job: a data set in a shared map, several processes that share the work on it, and faults on purpose.
// Run by `cargo xtask demo`; `--workers N` and `--no-faults` change it.
import { rmSync } from 'node:fs'
import path from 'node:path'
import { parseArgs } from 'node:util'
import { counter, open } from 'coheap'
import { citiesByKey } from './data.mjs'
import { Faults, now } from './faults.mjs'
import { Checksum, partitionResult, total } from './job.mjs'
import { bar, megabytes, seconds, table } from './report.mjs'
import { startProxy, startRelay, startWorker } from './processes.mjs'

const { values: flags } = parseArgs({ options: { workers: { type: 'string', default: '4' }, 'no-faults': { type: 'boolean', default: false } } })
const WORKERS = Number(flags.workers)
if (!Number.isInteger(WORKERS) || WORKERS < (flags['no-faults'] ? 1 : 3) || WORKERS > 16) {
  console.error('--workers takes a whole number from 3 to 16 (from 1 with --no-faults)')
  process.exit(2)
}
const BUDGET = '8mb'
const ROUNDS_MAX = 5
const binary = process.env.COHEAP_RELAY_BIN ?? path.resolve('target/release/coheap-relay')
const scratch = path.resolve('target/demo')
const data = path.join(scratch, 'data')
rmSync(data, { recursive: true, force: true })

const started = now()
const failures = []
const expect = (truth, what) => { if (!truth) failures.push(what) }

// 1. The relay.
let relay = await startRelay(binary, data)
const proxy = await startProxy(relay.port)
const at = (port) => `ws://127.0.0.1:${port}/heap/world`
console.log(`relay on port ${relay.port}, data in ${path.relative('.', data)}`)

// 2. The data.
const beatsOf = Object.fromEntries(Array.from({ length: WORKERS }, (_, n) => [`worker-${n}`, counter()]))
const heap = await open(at(relay.port), { name: 'demo', initial: { processed: counter(), beats: beatsOf } })
const cities = heap.map('cities')
const results = heap.map('results', { partitions: 64 })
const all = citiesByKey()
let imported = 0
const importing = now()
await cities.setMany((function* () {
  for (const entry of all) {
    if (++imported % 1000 === 0 || imported === all.length) bar('import', imported, all.length)
    yield entry
  }
})())
await heap.flush({ timeoutMs: 120_000 })
const importMs = now() - importing
const COUNT = cities.partitions.length

// What the answer has to be: one process, plain arrays.
const byPartition = Array.from({ length: COUNT }, () => [])
for (const [key, city] of all) byPartition[cities.partitionOf(key).index].push([key, city])
const wholeSum = new Checksum()
const plainResults = byPartition.map((entries) => {
  entries.sort(([a], [b]) => (a < b ? -1 : 1))
  for (const [key, city] of entries) wholeSum.add(key, city)
  return partitionResult(entries.map(([, city]) => ({ ...city, lat: Number(city.lat), lng: Number(city.lng) })))
})
const plain = total(plainResults)

// 3. and 4. The work, and what goes wrong meanwhile.
const workers = []
const doneBy = new Map()
let rounds = 0
let workMs = 0
let finished = new Map()
let run = ''
let expected = 0
let twice = 0

await results.watch((change) => {
  if (!change.key.startsWith(`${run}/`) || change.value === undefined) return
  const index = Number(change.key.slice(run.length + 1))
  if (finished.has(index)) twice++
  finished.set(index, { at: now(), by: change.by.name })
  doneBy.set(change.by.name, (doneBy.get(change.by.name) ?? 0) + 1)
  bar(`round ${rounds}`, finished.size, COUNT)
})

const faults = new Faults({
  share: () => finished.size / COUNT,
  results: () => finished,
  workers: () => workers,
  sync: () => heap.sync({ timeoutMs: 60_000 }),
  cutOff: (ms) => proxy.cut(ms),
  async restartRelay() {
    relay.child.kill('SIGKILL')
    await relay.exited
    relay = await startRelay(binary, data, relay.port)
  },
})

/** How many commits of that name are in the heap: its beats and its results. */
const arrivedOf = (name) => heap.root.beats[name].value + (doneBy.get(name) ?? 0)

function onMessage(worker, message) {
  if (message.report) worker.report = message.report
  if (message.commits === undefined) return
  const before = worker.diary.at(-1)
  worker.diary.push(message)
  if (!flags['no-faults']) faults.wrote(worker, message, before)
}

do {
  rounds++
  run = `round-${rounds}`
  finished = new Map()
  expected += COUNT
  const working = now()
  const team = []
  for (let number = 0; number < WORKERS; number++) {
    if (number === 0 && faults.kill?.counts) continue
    const name = `worker-${number}`
    const worker = { number, name, diary: [], before: arrivedOf(name), killed: false, ended: false }
    const port = number === 1 ? proxy.port : relay.port
    const folder = path.join(scratch, 'workers', worker.name)
    Object.assign(worker, startWorker(folder, [at(port), BUDGET, worker.name, run], (message) => onMessage(worker, message)))
    worker.exited.then(() => { worker.ended = true })
    team.push(worker)
  }
  workers.push(...team)
  const ends = await Promise.all(team.map((worker) => worker.exited))
  workMs += now() - working
  ends.forEach(({ code, signal }, n) => {
    if (!team[n].killed) expect(code === 0, `worker-${team[n].number} ended with ${code ?? signal}`)
  })
  await heap.sync({ timeoutMs: 60_000 })
  expect(finished.size === COUNT, `round ${rounds}: ${finished.size} of ${COUNT} partitions have a result`)
} while (failures.length === 0 && !flags['no-faults'] && !faults.allCount && rounds < ROUNDS_MAX)

// 5. The proof.
const survivors = workers.filter((worker) => !worker.killed)
// The root, the two maps' meta segments, all partitions of the one, and what was written to of the other.
const touched = (report) => 1 + 2 + COUNT + report.written
// Each segment that left and is not here at the end was loaded once more for every time it left but one.
const reloads = (report) => report.stats.evictions - (touched(report) - report.segments)
for (const worker of survivors) {
  expect(worker.report?.checksum === String(wholeSum), `${worker.name} read ${worker.report?.checksum}, not ${wholeSum}`)
  expect(worker.report?.stats.evictions > 0, `${worker.name} evicted nothing`)
  expect(worker.report && reloads(worker.report) > 0, `${worker.name} loaded nothing again`)
}
const reads = await Promise.all(Array.from({ length: COUNT }, (_, index) => results.get(`${run}/${index}`)))
expect(reads.every(Boolean), 'a partition has no result')
if (reads.every(Boolean)) {
  const got = total(reads)
  expect(Object.keys(got).length === Object.keys(plain).length, 'the countries differ')
  for (const [country, fields] of Object.entries(plain)) {
    for (const [field, value] of Object.entries(fields)) {
      expect(Object.is(got[country]?.[field], value), `${country}.${field}: ${got[country]?.[field]} instead of ${value}`)
    }
  }
  const counted = reads.reduce((sum, result) => sum + result.cities, 0)
  expect(counted === all.length, `${counted} cities were counted instead of ${all.length}`)
}
expect(heap.root.processed.value === expected, `${heap.root.processed.value} partitions were counted instead of ${expected}`)
expect(twice === 0, `${twice} results were written twice`)
for (let number = 0; number < WORKERS; number++) {
  const lives = workers.filter((worker) => worker.number === number)
  const made = (what) => lives.reduce((sum, worker) => sum + (worker.report?.[what] ?? 0), 0)
  const [beats, results] = [heap.root.beats[`worker-${number}`].value, doneBy.get(`worker-${number}`) ?? 0]
  if (lives.some((worker) => worker.killed)) continue
  expect(beats === made('beats'), `worker-${number} beat ${made('beats')} times, the heap says ${beats}`)
  const refused = lives.reduce((sum, worker) => sum + (worker.report?.stats.refused ?? 0), 0)
  expect(results === made('partitions') - refused, `worker-${number} did ${made('partitions')} partitions, ${refused} were refused, ${results} results are its`)
}
if (!flags['no-faults']) faults.judge(expect, (worker) => arrivedOf(worker.name) - worker.before)

const rows = [
  ['cities · partitions · rounds', `${all.length} · ${COUNT} · ${rounds}`],
  ['import', seconds(importMs)],
  [`work of ${WORKERS} processes (with the final read)`, seconds(workMs)],
  ['whole demo', seconds(now() - started)],
]
for (const { name, report } of survivors) {
  if (report === undefined) continue
  const { stats, peak, partitions } = report
  rows.push([name, `${partitions - stats.refused} partitions · ${megabytes(peak)} resident at most · ${megabytes(stats.bytesIn)} in, ${megabytes(stats.bytesOut)} out · ${stats.loads} loads (${reloads(report)} again) · ${stats.evictions} evictions`])
}
table([...rows, ...faults.rows()])

await heap.close().catch((error) => failures.push(`close: ${error.message}`))
proxy.close()
relay.child.kill('SIGTERM')
const { code } = await relay.exited
expect(code === 0, `the relay ended with ${code}`)
if (failures.length > 0) {
  console.error(`\n${failures.length} things are not as they should be:`)
  for (const failure of failures.slice(0, 20)) console.error(`  ${failure}`)
  process.exit(1)
}
console.log('\nevery worker read the same, the result equals the plain computation, nothing was lost or counted twice')
