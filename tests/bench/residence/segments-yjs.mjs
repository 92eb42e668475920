// As many documents, with nothing that connects them.
import { args, expect, settle, tell, tenKeys, used } from './child.mjs'
import { Y } from './yjs.mjs'

const updates = Array.from({ length: args.count }, (_, n) => {
  const document = new Y.Doc()
  document.transact(() => { for (const [key, value] of Object.entries(tenKeys(n))) document.getMap('').set(key, value) })
  return Y.encodeStateAsUpdate(document)
})
await settle()
const before = used()
let sum = 0
const documents = updates.map((update) => {
  const document = new Y.Doc()
  Y.applyUpdate(document, update)
  sum += document.getMap('').get('k9') - document.getMap('').get('k0')
  return document
})
await settle()
tell({ 'per segment': (used() - before) / args.count })
expect(sum, 9 * args.count)
expect(documents.length, args.count)
