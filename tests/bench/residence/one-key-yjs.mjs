import { args, expect, keyOf, tell, valueOf } from './child.mjs'
import { openDocument } from './yjs.mjs'

const at = args.count >> 1
const begun = performance.now()
const { document, provider } = await openDocument()
const value = document.getMap('entries').get(keyOf(at))
const fresh = performance.now() - begun
expect(value, valueOf(at))
tell({ 'fresh process, from open() to the value': fresh })
provider.destroy()
process.exit()
