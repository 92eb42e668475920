// One worker: it knows the heap's URL and its budget, nothing else. It shares the partitions of a map with whoever else works
// on them, writes each partition's result in the commit that says the partition is done, and in the end reads everything once.
// It keeps a diary: a line on its standard output for every commit it makes or hears acknowledged. A result is refused if its
// partition was given to another while this worker was cut off; it then counts for that one.
import { open } from 'coheap'
import { Checksum, partitionResult, peakBytes } from './job.mjs'

const [url, budget, name, run] = process.argv.slice(2)
const tell = (message) => process.stdout.write(`${JSON.stringify(message)}\n`)
const now = () => Number(process.hrtime.bigint() / 1000n) / 1000

const heap = await open(url, { budget, name })
const cities = heap.map('cities')
const results = heap.map('results', { partitions: 64 })

let commits = 0
let hand = null // the partition it works on
const diary = ({ connection, unsaved }) => tell({ at: now(), connection, unsaved, commits, refused: heap.stats().refused, hand })
heap.addEventListener('status', diary)

let beats = 0
const pulse = setInterval(() => {
  heap.transact(() => heap.root.beats[name].add(1))
  beats++
  commits++
}, 20)

let partitions = 0
const written = new Set()
for await (const part of cities.share({ group: 'stats', run })) {
  hand = part.index
  diary(heap.status)
  const values = [...part.entries()].map(([, city]) => ({ ...city, lat: Number(city.lat), lng: Number(city.lng) }))
  const result = partitionResult(values)
  const key = `${run}/${part.index}`
  const there = await results.partitionOf(key).load()
  written.add(there.index)
  try {
    heap.transact(() => {
      there.set(key, result)
      heap.root.processed.add(1)
      part.done()
    })
    partitions++
    commits++
  } catch (error) {
    if (error.code !== 'ERR_CONFLICT') throw error // another worker has it now
  }
  hand = null
}
clearInterval(pulse)

await heap.sync({ timeoutMs: 60_000 })
const checksum = new Checksum()
for await (const [key, city] of cities.entries()) checksum.add(key, city)
await heap.flush({ timeoutMs: 60_000 })
const report = { partitions, beats, commits, written: written.size, checksum: String(checksum), peak: peakBytes(), segments: heap.status.segments, stats: heap.stats() }
await heap.close()
tell({ report })
