import { args, expect, forgetPeak, peak, resident, settle, tell } from './child.mjs'
import { openDocument } from './yjs.mjs'

await settle()
const before = resident()
forgetPeak()
const begun = performance.now()
const { document } = await openDocument()
let [entries, bytes] = [0, 0]
for (const [, value] of document.getMap('entries').entries()) {
  entries++
  bytes += value.length
}
tell({ 'VmHWM − VmRSS after open and gc': peak() - before, time: (performance.now() - begun) / 1000 })
expect(entries, args.count)
expect(bytes, 40 * args.count)
process.exit()
