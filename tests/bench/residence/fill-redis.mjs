import { args, keyOf, peak, peer, tell, valueOf } from './child.mjs'

const { Redis } = peer('ioredis')
const redis = new Redis(args.port, '127.0.0.1')
for (let from = 0; from < args.count; from += 10_000) {
  const line = redis.pipeline()
  for (let n = from; n < Math.min(from + 10_000, args.count); n++) line.hset('entries', keyOf(n), valueOf(n))
  await line.exec()
}
tell({ most: peak() })
redis.disconnect()
