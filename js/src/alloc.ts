/**
 * `heap.alloc`: a segment of its own for a new object, or a place in the segment of another one.
 *
 * The object goes into the mirror and into the open batch in one step; if it does not fit behind what was written before it in this
 * turn, that is committed first.
 */

import { LIMIT } from './edge.js'
import { Intake } from './input.js'
import type { Mirror, Node } from './mirror.js'
import { HeapRef } from './refs.js'
import type { Segment } from './residence.js'
import type { Space } from './space.js'
import { encodeId, freshId } from './uuid.js'

/**
 * Makes a segment whose first object is `value`; with `history` it keeps what it held before. Or, `near` another object, an
 * object that nothing holds in the segment of that one.
 */
export function allocate(space: Space, value: object, history: boolean, near: unknown): HeapRef {
  if (space.over !== undefined) throw space.over
  const container = typeof value === 'object' && value !== null && !(value instanceof Date) && !(value instanceof Uint8Array) && !(value instanceof HeapRef)
  if (!container) throw new TypeError('heap.alloc takes an object, an array, counter(), text() or set()')
  if (near !== undefined && history) throw new TypeError('heap.alloc: `near` says which segment, and whether that keeps its history was said when it was made')
  const there = near === undefined ? undefined : roomNear(space, near)
  for (;;) {
    const ref = there === undefined ? allocNew(space, value, history) : allocIn(space, there, value)
    if (ref !== undefined) return ref
    // It did not fit behind what was written before it in this turn.
    space.closeBatch()
  }
}

function allocNew(space: Space, value: object, history: boolean): HeapRef | undefined {
  const id = encodeId(freshId())
  const segment = space.segment(id)
  segment.history = history
  const mirror = space.residents.show(segment)
  let intake: Intake | undefined
  try {
    const section = space.section(mirror)
    intake = new Intake(mirror, space, section.values, [])
    intake.value(value)
    if (space.hasRoom(intake.size)) {
      section.root(intake.finish(mirror.undo))
      segment.standing = 'here'
      space.wrote()
      return space.refs.of(id)
    }
  } catch (error) {
    unmake(space, mirror, intake)
    throw error
  }
  unmake(space, mirror, intake)
  return undefined
}

function allocIn(space: Space, segment: Segment, value: object): HeapRef | undefined {
  const mirror = segment.mirror!
  const section = space.section(mirror)
  const intake = new Intake(mirror, space, section.values, [])
  let node: Node
  try {
    node = intake.value(value) as Node
    if (!space.hasRoom(intake.size)) {
      intake.drop()
      return undefined
    }
  } catch (error) {
    intake.drop()
    throw error
  }
  const id = encodeId(freshId())
  const encoded = intake.finish(mirror.undo)
  mirror.place(id, node)
  section.near(id, encoded)
  space.wrote()
  return space.refs.of(segment.id, id)
}

function unmake(space: Space, mirror: Mirror, intake: Intake | undefined): void {
  intake?.drop()
  space.writing.drop(mirror)
  space.forget(mirror)
}

/** The segment of a Ref; `undefined`: it is so large that what comes near it gets a segment of its own. */
function roomNear(space: Space, ref: unknown): Segment | undefined {
  if (!(ref instanceof HeapRef) || !ref.isOf(space)) throw new TypeError('heap.alloc: `near` is a Ref of this heap')
  const segment = space.segmentOf(space.resolve(ref))!
  const open = space.writing.openSection(segment.mirror!)?.bytes ?? 0
  return segment.bytes + open < LIMIT.segmentBytesSoft ? segment : undefined
}
