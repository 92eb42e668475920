import { open } from 'coheap'
import { args, expect, forgetPeak, peak, resident, settle, tell } from './child.mjs'

const heap = await open(args.url, { budget: '32mb' })
await settle()
const before = resident()
forgetPeak()
const begun = performance.now()
let [entries, bytes] = [0, 0]
for await (const [, value] of heap.map('entries').entries()) {
  entries++
  bytes += value.length
}
tell({ 'VmHWM − VmRSS after open and gc': peak() - before, time: (performance.now() - begun) / 1000 })
expect(entries, args.count)
expect(bytes, 40 * args.count)
await heap.close()
