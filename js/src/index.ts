export { open } from './open.js'
export { counter, set, text } from './values.js'
export { move } from './list-proxy.js'
export { snapshot } from './snapshot.js'
export { createBudget } from './residence.js'
export { HeapError, type ErrorCode } from './errors.js'
export type {
  Anchor, Author, BigMap, Budget, Change, Claim, Counter, Heap, HeapEvents, HeapStats, SegmentStats, Json, LiveSet, MapChange, Member, NotThenable,
  OpenOptions, Partition, Patch, Path, Presence, Ref, Snapshot, Status, Text, Version, Wait, WatchOptions, WebSocketLike,
} from './types.js'
