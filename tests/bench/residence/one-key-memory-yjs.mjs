import { args, expect, keyOf, resident, settle, tell, valueOf } from './child.mjs'
import { openDocument } from './yjs.mjs'

const at = args.count >> 1
await settle()
const before = resident()
const { document } = await openDocument()
expect(document.getMap('entries').get(keyOf(at)), valueOf(at))
await settle()
tell({ 'resident memory grown': resident() - before })
process.exit()
