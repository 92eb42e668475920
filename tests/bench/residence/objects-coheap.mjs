import { open } from 'coheap'
import { args, expect, settle, tell, used } from './child.mjs'

const heap = await open(args.url)
await settle()
const before = used()
await read(() => {})
await settle()
const unheld = used() - before
const held = []
await read((object) => held.push(object))
await settle()
tell({ 'per object': unheld / args.count, 'with all objects held, per object': (used() - before) / args.count })
expect(held.length, args.count)
await heap.close()

async function read(keep) {
  const list = await heap.root.objects.load()
  let [objects, sum] = [0, 0]
  for (const object of list) {
    sum += object.id + object.name.length + object.count
    objects++
    keep(object)
  }
  expect(objects, args.count)
  if (!(sum > 0)) throw new Error('nothing was read')
}
