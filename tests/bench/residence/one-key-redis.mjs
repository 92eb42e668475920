import { args, expect, keyOf, peer, tell, valueOf } from './child.mjs'

const { Redis } = peer('ioredis')
const [first, second] = [args.count >> 1, args.count >> 2]
let begun = performance.now()
const redis = new Redis(args.port, '127.0.0.1')
const value = await redis.hget('entries', keyOf(first))
const fresh = performance.now() - begun
begun = performance.now()
const other = await redis.hget('entries', keyOf(second))
const warm = performance.now() - begun
expect(value, valueOf(first))
expect(other, valueOf(second))
tell({ 'fresh process, from open() to the value': fresh, 'another key, the heap open': warm })
redis.disconnect()
