import { open } from 'coheap'
import { args, expect, tell } from './child.mjs'

const heap = await open(args.url)
const times = []
for (const ref of heap.root.pages) {
  const begun = performance.now()
  const page = await ref.load()
  times.push(performance.now() - begun)
  expect(page.k99, 99)
}
expect(times.length, args.count)
times.sort((a, b) => a - b)
tell({ [`median of ${args.count}`]: times[args.count >> 1] })
await heap.close()
