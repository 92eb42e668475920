import { open } from 'coheap'
import { args, expect, keyOf, resident, settle, tell, valueOf } from './child.mjs'

const at = args.count >> 1
const idle = await open(args.idle)
await settle()
const before = resident()
const heap = await open(args.url)
expect(await heap.map('entries').get(keyOf(at)), valueOf(at))
await settle()
tell({ 'resident memory grown': resident() - before })
await Promise.all([heap.close(), idle.close()])
