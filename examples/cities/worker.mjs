// One worker: it knows the heap's URL and its budget, nothing else. It shares the partitions of a map with whoever else works
// on them, writes each partition's result in the commit that says the partition is done, and in the end reads everything once.
import { open } from 'coheap'
import { Checksum, partitionResult } from './job.mjs'

const [url, budget, name, run] = process.argv.slice(2)
const tell = (message) => process.stdout.write(`${JSON.stringify(message)}\n`)

const heap = await open(url, { budget, name })
const cities = heap.map('cities')
const results = heap.map('results', { partitions: 64 })

let beats = 0
let peak = 0
heap.addEventListener('status', (s) => tell({ connection: s.connection, unsaved: s.unsaved, beats }))
const pulse = setInterval(() => {
  heap.root.beats[name].add(1)
  beats++
  peak = Math.max(peak, process.memoryUsage().rss)
}, 20)

let partitions = 0
for await (const part of cities.share({ group: 'stats', run })) {
  const values = [...part.entries()].map(([, city]) => ({ ...city, lat: Number(city.lat), lng: Number(city.lng) }))
  const result = partitionResult(values)
  const key = `${run}/${part.index}`
  const there = await results.partitionOf(key).load()
  try {
    heap.transact(() => {
      there.set(key, result)
      heap.root.processed.add(1)
      part.done()
    })
    partitions++
  } catch (error) {
    if (error.code !== 'ERR_CONFLICT') throw error // another worker has it now
  }
}
clearInterval(pulse)
tell({ shared: partitions })

await heap.sync({ timeoutMs: 60_000 })
const checksum = new Checksum()
for await (const [key, city] of cities.entries()) {
  checksum.add(key, city)
  peak = Math.max(peak, process.memoryUsage().rss)
}
await heap.flush({ timeoutMs: 60_000 })
tell({ report: { partitions, beats, checksum: String(checksum), peak, stats: heap.stats() } })
await heap.close()
