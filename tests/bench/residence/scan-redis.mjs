import { args, expect, forgetPeak, peak, peer, resident, settle, tell } from './child.mjs'

const { Redis } = peer('ioredis')
const redis = new Redis(args.port, '127.0.0.1')
await redis.ping()
await settle()
const before = resident()
forgetPeak()
const begun = performance.now()
let [entries, bytes] = [0, 0]
for await (const piece of redis.hscanStream('entries', { count: 1_000 })) {
  for (let n = 1; n < piece.length; n += 2) {
    entries++
    bytes += piece[n].length
  }
}
tell({ 'VmHWM − VmRSS after open and gc': peak() - before, time: (performance.now() - begun) / 1000 })
expect(entries, args.count)
expect(bytes, 40 * args.count)
redis.disconnect()
