import { args, expect, settle, tell, used } from './child.mjs'
import { openDocument } from './yjs.mjs'

await settle()
const before = used()
const { document } = await openDocument()
await read(() => {})
await settle()
const unheld = used() - before
const held = []
await read((object) => held.push(object))
await settle()
tell({ 'per object': unheld / args.count, 'with all objects held, per object': (used() - before) / args.count })
expect(held.length, args.count)
process.exit()

async function read(keep) {
  let [objects, sum] = [0, 0]
  for (const object of document.getArray('objects')) {
    sum += object.get('id') + object.get('name').length + object.get('count')
    objects++
    keep(object)
  }
  expect(objects, args.count)
  if (!(sum > 0)) throw new Error('nothing was read')
}
