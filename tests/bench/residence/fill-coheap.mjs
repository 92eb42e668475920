import { open } from 'coheap'
import { args, keyOf, objectOf, peak, tell, tenKeys, valueOf } from './child.mjs'

const FILL = {
  async entries(heap) {
    await heap.map('entries').setMany((function* () {
      for (let n = 0; n < args.count; n++) yield [keyOf(n), valueOf(n)]
    })())
  },
  async objects(heap) {
    heap.root.objects = heap.alloc([])
    const list = await heap.root.objects.load()
    for (let from = 0; from < args.count; from += 1_000) {
      const some = Array.from({ length: Math.min(1_000, args.count - from) }, (_, n) => objectOf(from + n))
      heap.transact(() => list.push(...some))
      if (from % 10_000 === 0) await heap.flush()
    }
  },
  async segments(heap) {
    heap.root.segments = heap.alloc([])
    const list = await heap.root.segments.load()
    for (let from = 0; from < args.count; from += 100) {
      heap.transact(() => list.push(...Array.from({ length: 100 }, (_, n) => heap.alloc(tenKeys(from + n)))))
      await heap.flush()
    }
  },
  async keys(heap) {
    heap.root.keys = Object.fromEntries(Array.from({ length: args.count }, (_, n) => [`k${n}`, n]))
  },
  async pages(heap) {
    const page = () => Object.fromEntries(Array.from({ length: 100 }, (_, n) => [`k${n}`, n]))
    heap.root.pages = []
    for (let n = 0; n < args.count; n++) heap.transact(() => heap.root.pages.push(heap.alloc(page())))
  },
}
const heap = await open(args.url)
await FILL[args.what](heap)
await heap.flush()
tell({ most: peak() })
await heap.close()
