// What they take in a process that shares them with nobody.
import { args, expect, objectOf, settle, tell, used } from './child.mjs'

await settle()
const before = used()
const objects = Array.from({ length: args.count }, (_, n) => JSON.parse(JSON.stringify(objectOf(n))))
await settle()
tell({ 'with all objects held, per object': (used() - before) / args.count })
expect(objects.length, args.count)
