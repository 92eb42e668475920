import { args, expect, keyOf, peer, resident, settle, tell, valueOf } from './child.mjs'

const { Redis } = peer('ioredis')
const at = args.count >> 1
await settle()
const before = resident()
const redis = new Redis(args.port, '127.0.0.1')
expect(await redis.hget('entries', keyOf(at)), valueOf(at))
await settle()
tell({ 'resident memory grown': resident() - before })
redis.disconnect()
