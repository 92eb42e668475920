import { open } from 'coheap'
import { args, expect, keyOf, tell, valueOf } from './child.mjs'

const [first, second] = [args.count >> 1, args.count >> 2]
let begun = performance.now()
const heap = await open(args.url)
const map = heap.map('entries')
const value = await map.get(keyOf(first))
const fresh = performance.now() - begun
begun = performance.now()
const other = await map.get(keyOf(second))
const warm = performance.now() - begun
expect(value, valueOf(first))
expect(other, valueOf(second))
tell({ 'fresh process, from open() to the value': fresh, 'another key, the heap open': warm })
await heap.close()
