// The main job: a data set in a shared map, several processes that share the work on it, and faults on purpose.
// Run by `cargo xtask demo`; `--workers N` and `--no-faults` change it.
import { rmSync } from 'node:fs'
import path from 'node:path'
import { performance } from 'node:perf_hooks'
import { parseArgs } from 'node:util'
import { counter, open } from 'coheap'
import { citiesByKey } from './data.mjs'
import { Checksum, partitionResult, total } from './job.mjs'
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

const started = performance.now()
const seconds = (ms) => `${(ms / 1000).toFixed(1)} s`
const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`
const failures = []
const expect = (truth, what) => { if (!truth) failures.push(what) }

function bar(label, done, all) {
  const width = 32
  const full = Math.round((done / all) * width)
  const line = `${label.padEnd(16)} [${'#'.repeat(full)}${'.'.repeat(width - full)}] ${done}/${all}`
  if (process.stdout.isTTY) process.stdout.write(`\r${line}${done >= all ? '\n' : ''}`)
  else if (done >= all || done % Math.ceil(all / 10) === 0) console.log(line)
}

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
const importing = performance.now()
await cities.setMany((function* () {
  for (const entry of all) {
    if (++imported % 1000 === 0 || imported === all.length) bar('import', imported, all.length)
    yield entry
  }
})())
await heap.flush({ timeoutMs: 120_000 })
const importMs = performance.now() - importing
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
const faults = { kill: undefined, cut: undefined, relay: undefined }
const workers = []
let rounds = 0
let workMs = 0
let finished = new Map()
let run = ''
let expected = 0

await results.watch((change) => {
  if (!change.key.startsWith(`${run}/`) || change.value === undefined) return
  finished.set(Number(change.key.slice(run.length + 1)), { at: performance.now(), by: change.by.name })
  bar(`round ${rounds}`, finished.size, COUNT)
})

function onMessage(worker, message) {
  if (message.report) worker.report = message.report
  if (message.shared !== undefined) worker.shared = message.shared
  if (message.unsaved === undefined) return
  worker.unsaved = message.unsaved
  worker.beats = message.beats
  worker.connection = message.connection
  if (message.connection !== 'online' && message.unsaved > 0) worker.unsavedOffline = Math.max(worker.unsavedOffline ?? 0, message.unsaved)
  if (!flags['no-faults']) provoke(worker)
}

/** Does the next fault when its time has come and this worker has a commit in flight. */
function provoke(worker) {
  const share = finished.size / COUNT
  if (share < 0.2 || share > 0.6 || worker.unsaved === 0) return
  if (!faults.kill && worker.number === 0) {
    faults.kill = { at: performance.now(), unsaved: worker.unsaved, share }
    worker.killed = true
    worker.child.kill('SIGKILL')
    console.log(`\nworker-0 killed at ${Math.round(share * 100)} % with ${worker.unsaved} unacknowledged commits`)
  } else if (faults.kill && !faults.cut && share > 0.25 && worker.number === 1) {
    faults.cut = { at: performance.now(), share, worker }
    worker.unsavedOffline = 0
    console.log(`\nworker-1 cut off for 2 s at ${Math.round(share * 100)} % with ${worker.unsaved} unacknowledged commits`)
    proxy.cut(2000).then(() => { faults.cut.backAt = performance.now() })
  } else if (faults.cut?.backAt && !faults.relay && share > 0.3) {
    faults.relay = { at: performance.now(), share, unsaved: worker.unsaved }
    console.log(`\nrelay killed at ${Math.round(share * 100)} % with ${worker.unsaved} unacknowledged commits`)
    relay.child.kill('SIGKILL')
    relay.exited.then(async () => {
      relay = await startRelay(binary, data, relay.port)
      faults.relay.listening = performance.now()
    })
  }
}

const allFaults = () => flags['no-faults'] || (faults.kill && faults.cut?.backAt && faults.relay?.listening)
do {
  rounds++
  run = `round-${rounds}`
  finished = new Map()
  expected += COUNT
  const working = performance.now()
  const team = []
  for (let number = 0; number < WORKERS; number++) {
    if (rounds > 1 && workers.some((worker) => worker.number === number && worker.killed)) continue
    const worker = { number, name: `worker-${number}`, unsaved: 0, beats: 0 }
    const port = number === 1 ? proxy.port : relay.port
    const folder = path.join(scratch, 'workers', worker.name)
    Object.assign(worker, startWorker(folder, [at(port), BUDGET, worker.name, run], (message) => onMessage(worker, message)))
    team.push(worker)
  }
  workers.push(...team)
  const ends = await Promise.all(team.map((worker) => worker.exited))
  workMs += performance.now() - working
  ends.forEach(({ code, signal }, n) => {
    if (!team[n].killed) expect(code === 0, `worker-${team[n].number} ended with ${code ?? signal}`)
  })
  await heap.sync({ timeoutMs: 60_000 })
  expect(finished.size === COUNT, `round ${rounds}: ${finished.size} of ${COUNT} partitions have a result`)
} while (failures.length === 0 && !allFaults() && rounds < ROUNDS_MAX)

// 5. The proof.
const survivors = workers.filter((worker) => !worker.killed)
for (const worker of survivors) {
  expect(worker.report?.checksum === String(wholeSum), `${worker.name} read ${worker.report?.checksum}, not ${wholeSum}`)
  expect(worker.report?.stats.evictions > 0, `${worker.name} evicted nothing`)
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
for (let number = 0; number < WORKERS; number++) {
  const lives = workers.filter((worker) => worker.number === number)
  const value = heap.root.beats[`worker-${number}`].value
  const made = lives.reduce((sum, worker) => sum + (worker.report?.beats ?? 0), 0)
  if (lives.every((worker) => !worker.killed)) expect(value === made, `worker-${number} beat ${made} times, the heap says ${value}`)
}
if (!flags['no-faults']) {
  expect(faults.kill?.unsaved > 0, 'no worker was killed with commits in flight')
  expect(faults.cut?.worker.unsavedOffline > 0, 'the worker that was cut off did not write on')
  expect(faults.relay?.unsaved > 0, 'the relay was not killed with commits in flight')
  for (const [name, fault] of Object.entries(faults)) expect(fault !== undefined, `the fault "${name}" did not happen`)
}

const firstAfter = (moment, name) => {
  const times = [...finished.values()].filter((one) => one.at > moment && (name === undefined || one.by === name)).map((one) => one.at)
  return times.length > 0 ? seconds(Math.min(...times) - moment) : 'in another round'
}
const rows = [
  ['cities · partitions · rounds', `${all.length} · ${COUNT} · ${rounds}`],
  ['import', seconds(importMs)],
  [`work of ${WORKERS} processes (with the final read)`, seconds(workMs)],
  ['whole demo', seconds(performance.now() - started)],
]
for (const worker of survivors) {
  const { stats, peak, partitions } = worker.report ?? { stats: { bytesIn: 0, bytesOut: 0 }, peak: 0 }
  rows.push([worker.name, `${partitions} partitions · peak ${megabytes(peak)} resident · ${megabytes(stats.bytesIn)} in, ${megabytes(stats.bytesOut)} out · ${stats.loads} loads · ${stats.evictions} evictions`])
}
if (faults.kill) rows.push(['a worker killed', `next result of the others after ${firstAfter(faults.kill.at)} (${faults.kill.unsaved} commits in flight)`])
if (faults.cut?.backAt) rows.push(['a worker cut off for 2 s', `its next result ${firstAfter(faults.cut.backAt, 'worker-1')} after it was back (${faults.cut.worker.unsavedOffline} commits waiting)`])
if (faults.relay?.listening) rows.push(['the relay killed', `listening again after ${seconds(faults.relay.listening - faults.relay.at)}, next result after ${firstAfter(faults.relay.at)} (${faults.relay.unsaved} commits in flight)`])
const width = Math.max(...rows.map(([name]) => name.length))
console.log()
for (const [name, value] of rows) console.log(`${name.padEnd(width)}  ${value}`)

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
