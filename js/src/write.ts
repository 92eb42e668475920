/**
 * Writes: each change a program makes, from check to batch. The one way into a mirror for a program.
 *
 * ```text
 * proxy.ts ──► setKey(node, 'x', 1) ──► Intake (check, copy, encode) ──► mirror.setKey + section.set
 * ```
 *
 * A write either happens whole or throws before anything changed. It never waits and never crosses into wasm; the heap
 * behind `WriteHost` decides when the batch does.
 */

import { HeapError } from './errors.js'
import { alreadyInHeap, checkKey, checkMember, formatPath, Intake, WEIGHT } from './input.js'
import { KIND, LIMIT, TAG, utf8Length, wellFormed, type Writer } from './edge.js'
import { mustBeAttached, type CounterNode, type ListNode, type MapNode, type Mirror, type Node, type SetNode, type Stored, type TextNode } from './mirror.js'
import { nodeOf } from './symbols.js'
import type { Encoded, Section } from './batch.js'
import type { RefHome } from './refs.js'

/** What writing needs of a heap. */
export interface WriteHost extends RefHome {
  /** Opens the batch for a segment; throws if nothing may be written now. */
  section(mirror: Mirror): Section
  /** After each write: lets the heap close a batch that has grown large. */
  wrote(): void
  readonly inTransact: boolean
  /**
   * Whether the open batch can take so many bytes more. Throws `ERR_TOO_LARGE` for what no commit could take. Within
   * `transact` there is always room: its end is where that is judged.
   */
  hasRoom(bytes: number): boolean
  /** Throws if so many bytes, which take several commits, cannot be waiting for the relay. */
  mayWrite(bytes: number): void
  /** Closes the open batch; the next write opens another. */
  closeBatch(): void
}

const hosts = new WeakMap<Mirror, WriteHost>()

/** Says which heap a mirror belongs to. */
export function hostOf(mirror: Mirror): WriteHost {
  const host = hosts.get(mirror)
  if (host === undefined) throw new HeapError('ERR_CLOSED', 'this object belongs to no open heap')
  return host
}

export function setHost(mirror: Mirror, host: WriteHost): void {
  hosts.set(mirror, host)
}

function begin(node: Node): Section {
  const section = hostOf(node.mirror).section(node.mirror)
  mustBeAttached(node)
  return section
}

function end(node: Node): void {
  hostOf(node.mirror).wrote()
}

/** The keys from the segment's first object to a node's child, for messages. */
export function pathTo(node: Node, ...last: (string | number)[]): (string | number)[] {
  const path: (string | number)[] = []
  for (let below: Node = node, above = node.parent; above !== undefined; below = above, above = above.parent) {
    if (above.kind === KIND.list) path.push(above.items.indexOf(below))
    else if (above.kind === KIND.map) {
      const bag = above.bag
      path.push(Object.keys(bag).find(key => bag[key] === below) ?? '?')
    }
  }
  return [...path.reverse(), ...last]
}

/** Opens the batch with room for so many bytes. */
function beginWith(node: Node, bytes: number): Section {
  const section = begin(node)
  const host = hostOf(node.mirror)
  if (host.hasRoom(bytes)) return section
  host.closeBatch()
  return begin(node)
}

/** Values as they are stored, and as they cross, in the section that is open for them. */
interface Taken { readonly section: Section; readonly stored: Stored[]; readonly encoded: Encoded }

interface Taking {
  /** The values are list elements from `at` on. */
  readonly spread?: boolean
  readonly emptyTexts?: boolean
}

/**
 * Reads values for a node; gives the handles back if one of them is not to be stored. `undefined`: they are sound, but too
 * many for one batch outside `transact`.
 */
function takeAll(node: Node, at: string | number, values: readonly unknown[], { spread = false, emptyTexts = false }: Taking): Taken | undefined {
  const host = hostOf(node.mirror)
  for (;;) {
    const section = begin(node)
    const intake = new Intake(node.mirror, host, section.values, [], { emptyTexts })
    try {
      let largest = 0
      const stored = values.map((value, i) => {
        const before = intake.size
        const taken = intake.at(spread ? (at as number) + i : at, () => intake.value(value))
        largest = Math.max(largest, intake.size - before)
        return taken
      })
      const size = intake.size + (spread ? values.length * WEIGHT.element : 0)
      const divisible = values.length > 1 && !host.inTransact && size > LIMIT.commitBytes / 4
      if (divisible) host.mayWrite(size)
      if (host.hasRoom(divisible ? largest : size) && !divisible) return { section, stored, encoded: intake.finish(section.mirror.undo) }
      intake.drop()
      if (divisible) return undefined
    } catch (error) {
      intake.drop()
      throw placed(error, node)
    }
    host.closeBatch()
  }
}

function take(node: Node, at: string | number, value: unknown, options: Taking = {}): Taken {
  return takeAll(node, at, [value], options)!
}

/** Puts the way to the node before the path within the value. */
function placed(error: unknown, node: Node): unknown {
  const above = formatPath(pathTo(node))
  if (above !== '' && error instanceof Error) {
    const rest = error.message
    try {
      error.message = above + (rest.startsWith('[') ? '' : '.') + rest
    } catch { /* a frozen error says what it says */ }
  }
  return error
}

// Maps

export function setKey(node: MapNode, rawKey: string, value: unknown): void {
  if (value === undefined) return void deleteKey(node, rawKey)
  const key = checkKey(rawKey)
  const live = nodeOf(value)
  if (live !== undefined) {
    if (node.bag[key] === live) return
    throw alreadyInHeap(formatPath(pathTo(node, key)))
  }
  const { section, stored, encoded } = take(node, key, value)
  node.mirror.setKey(node, key, stored[0]!)
  section.set(node, key, encoded)
  end(node)
}

export function deleteKey(node: MapNode, rawKey: string): boolean {
  const key = wellFormed(rawKey)
  if (node.bag[key] === undefined) return false
  const section = begin(node)
  node.mirror.deleteKey(node, key)
  section.delete(node, key)
  end(node)
  return true
}

/** Fills a key that is absent, in its default slot (S3). */
export function defaultKey(node: MapNode, rawKey: string, value: unknown): void {
  const key = checkKey(rawKey)
  if (value === undefined || node.bag[key] !== undefined) return
  const { section, stored, encoded } = take(node, key, value, { emptyTexts: true })
  node.mirror.setKey(node, key, stored[0]!)
  section.default(node, key, encoded)
  end(node)
}

// Lists

export function insertItems(node: ListNode, index: number, values: readonly unknown[]): void {
  if (values.length === 0) return
  if (!(Number.isInteger(index) && index >= 0 && index <= node.items.length)) throw new RangeError(`index ${index} is outside the list of ${node.items.length}`)
  const taken = takeAll(node, index, values, { spread: true })
  if (taken === undefined) {
    const half = values.length >> 1
    insertItems(node, index, values.slice(0, half))
    return insertItems(node, index + half, values.slice(half))
  }
  const { section, stored, encoded } = taken
  node.mirror.insert(node, index, stored)
  section.insert(node, index, values.length, encoded)
  end(node)
}

export function removeItems(node: ListNode, index: number, count: number): Stored[] {
  if (count <= 0) return []
  const section = begin(node)
  const removed = node.mirror.remove(node, index, count)
  section.remove(node, index, count)
  end(node)
  return removed
}

export function putItem(node: ListNode, index: number, value: unknown): void {
  if (index === node.items.length) return insertItems(node, index, [value])
  if (index > node.items.length) {
    throw new TypeError(`${formatPath(pathTo(node, index))}: the list has ${node.items.length} elements and no holes; push() what comes after the last`)
  }
  const live = nodeOf(value)
  if (live !== undefined && node.items[index] === live) return
  const { section, stored, encoded } = take(node, index, value)
  node.mirror.put(node, index, stored[0]!)
  section.put(node, index, encoded)
  end(node)
}

export function moveItem(node: ListNode, from: number, to: number): void {
  const length = node.items.length
  for (const [name, index] of [['from', from], ['to', to]] as const) {
    if (!(Number.isInteger(index) && index >= 0 && index < length)) throw new RangeError(`move: ${name} is ${index}, outside the list of ${length}`)
  }
  if (from === to) return
  const section = begin(node)
  node.mirror.move(node, from, to)
  section.move(node, from, to)
  end(node)
}

// Texts, counters, sets

export function spliceText(node: TextNode, index: number, removed: number, inserted: string): void {
  const text = wellFormed(inserted)
  if (removed === 0 && text === '') return
  const section = beginWith(node, text.length * 3 > LIMIT.commitBytes / 4 ? utf8Length(text) : 0)
  node.mirror.splice(node, index, removed, text)
  section.splice(node, index, removed, text)
  end(node)
}

export function addToCounter(node: CounterNode, by: number): void {
  if (by === 0) return
  const section = begin(node)
  node.mirror.total(node, node.value + by)
  section.add(node, by)
  end(node)
}

export function includeMember(node: SetNode, value: unknown): void {
  const member = checkMember(value)
  const section = begin(node)
  if (node.members.has(member)) return
  const encoded = encodeMember(section.values, member)
  node.mirror.include(node, member)
  section.include(node, encoded)
  end(node)
}

export function excludeMember(node: SetNode, value: unknown): boolean {
  const member = checkMember(value)
  if (!node.members.has(member)) return false
  const section = begin(node)
  node.mirror.exclude(node, member)
  section.exclude(node, encodeMember(section.values, member))
  end(node)
  return true
}

function encodeMember(w: Writer, member: string | number | boolean): Encoded {
  if (typeof member === 'string' && member.length * 3 > LIMIT.valueBytes && utf8Length(member) > LIMIT.valueBytes) throw new HeapError('ERR_TOO_LARGE', 'a member of a set may have 256 kB')
  const start = w.length
  if (typeof member === 'number') w.number(member)
  else if (typeof member === 'string') w.u8(TAG.str).str(member)
  else w.u8(member ? TAG.true : TAG.false)
  return { start, end: w.length, containers: false, weight: WEIGHT.member }
}
