/**
 * How the package recognises its own objects: hidden symbols, so that nothing has to import the class of anything else.
 *
 * `NODE` leads from a live object to its mirror node; `DRAFT` from what `counter()`, `text()` and `set()` return to what it
 * would become. Both are private to the package.
 */

import type { Kind } from './edge.js'
import type { Member, Node } from './mirror.js'

export const NODE: unique symbol = Symbol('coheap.node')
export const DRAFT: unique symbol = Symbol('coheap.draft')

/** A container that is not in a heap yet. */
export interface Draft {
  readonly kind: Kind
  readonly content: number | string | ReadonlySet<Member>
  /** Makes the object live, once the write that took it stands; `undefined` undoes that. */
  bind(node: Node | undefined): void
  /** As a plain value. */
  plain(): unknown
}

/** The node behind a live object. */
export function nodeOf(value: unknown): Node | undefined {
  if (typeof value !== 'object' || value === null) return undefined
  return (value as { [NODE]?: Node })[NODE]
}

/** What a draft would become. */
export function draftOf(value: unknown): Draft | undefined {
  if (typeof value !== 'object' || value === null) return undefined
  return (value as { [DRAFT]?: Draft })[DRAFT]
}
