import { open } from 'coheap'
import { args, expect, settle, tell, used } from './child.mjs'

const heap = await open(args.url)
const refs = [...await heap.root.segments.load()]
await settle()
const before = used()
let sum = 0
for (let from = 0; from < refs.length; from += 500) {
  for (const one of await Promise.all(refs.slice(from, from + 500).map((ref) => ref.load()))) sum += one.k9 - one.k0
}
await settle()
tell({ 'per segment': (used() - before) / args.count })
expect(sum, 9 * args.count)
expect(heap.stats().evictions, 0)
await heap.close()
