import { args, keyOf, objectOf, peak, tell, valueOf } from './child.mjs'
import { openDocument, Y } from './yjs.mjs'

const { document, provider } = await openDocument()
document.transact(() => {
  if (args.what === 'entries') {
    const map = document.getMap('entries')
    for (let n = 0; n < args.count; n++) map.set(keyOf(n), valueOf(n))
  } else {
    const objects = Array.from({ length: args.count }, (_, n) => new Y.Map(Object.entries(objectOf(n))))
    document.getArray('objects').push(objects)
  }
})
// It says nothing when it has everything: another client must see it all.
const sizeOf = (of) => (args.what === 'entries' ? of.getMap('entries').size : of.getArray('objects').length)
for (;;) {
  await new Promise((resolve) => setTimeout(resolve, 1_000))
  const other = await openDocument()
  const there = sizeOf(other.document)
  other.provider.destroy()
  if (there === args.count) break
}
tell({ most: peak() })
provider.destroy()
process.exit()
