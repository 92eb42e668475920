/**
 * Conflicts: what a merge cannot keep, told to the program that wrote it.
 *
 * Where two replicas put containers of different kinds under one key at once, one wins everywhere (S2). The core says which own
 * container was lost; what it held is still in the mirror, whose nodes keep their last values.
 *
 * Where a relay has lost part of its log, and goes on with something that what is here cannot be put together with, all that is
 * here of a segment is lost: the program gets a copy (CORE-PROTOCOL D4, §14.3).
 */

import type { Overruled } from './driver.js'
import { KIND } from './edge.js'
import { HeapError } from './errors.js'
import { formatPath } from './input.js'
import { isAttached, type Mirror, type Node } from './mirror.js'
import type { HeapRef } from './refs.js'
import { snapshotOf } from './snapshot.js'
import type { Id } from './uuid.js'
import { pathTo } from './write.js'

/** The error event of a segment that the relay has something else of, with what is here: of its first object, and of others that nothing holds. */
export function conflictError(mirror: Mirror, refOf: (object?: Id) => HeapRef): HeapError | undefined {
  const first = mirror.nodes[0]
  if (first === undefined) return undefined
  const near = [...mirror.near].map(([id, node]) => ({ ref: refOf(id), lost: snapshotOf(node) }))
  const message = 'the relay has lost part of its log, and what it has of this segment does not go with what was here; details.lost is what this replica had of it'
  return new HeapError('ERR_CONFLICT', message, { details: { ref: refOf(), lost: snapshotOf(first), ...(near.length > 0 ? { near } : {}) } })
}

const NAMES = Object.fromEntries(Object.entries(KIND).map(([name, kind]) => [kind, name]))

/** The error event of a lost container; `undefined` if there is none to tell. */
export function overruledError(told: Overruled, mirror: Mirror, refOf: (object?: Id) => HeapRef): HeapError | undefined {
  const parent = mirror.nodes[told.parent]
  const lost = mirror.nodes[told.lost]
  // What is gone as a whole was not lost to another kind (S5).
  if (parent === undefined || lost === undefined || !isAttached(parent)) return undefined
  let top: Node = parent
  while (top.parent !== undefined) top = top.parent
  const path = pathTo(parent, told.key)
  const kind = NAMES[lost.kind]
  const kept = NAMES[told.kept]
  const message = `${formatPath(path)}: this replica made a ${kind} here and another one a ${kept} at the same time; the ${kept} stands, and details.lost is what the ${kind} held`
  return new HeapError('ERR_CONFLICT', message, { details: { ref: top.handle === 0 ? refOf() : refOf(top.id), path, kind, kept, lost: snapshotOf(lost) } })
}
