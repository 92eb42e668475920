/**
 * The batch: the edits of one transaction or microtask, per segment, until they cross into wasm as one buffer.
 *
 * Keeps edits small in number: a key set twice crosses once, neighbouring list inserts and text runs become one edit,
 * whole-number counts to one counter add up. What it must never change is the order in which new containers take their
 * handles, so edits that make containers stay where they are. It also keeps the undo log of the mirrors: a throw, or a
 * refusal by wasm, takes everything back, handles included.
 *
 * ```text
 * write.ts ──► Section.set / insert / splice … ──► Batch.encode ──► driver.commit
 *                                             └──► Batch.rollback
 * ```
 */

import { EDIT, Writer } from './edge.js'
import { WEIGHT } from './input.js'
import { decodeId, type Id } from './uuid.js'
import type { Mirror, Node } from './mirror.js'

/**
 * A value as it crosses: where it lies in its section's `values`. One buffer for all of them, because an `ArrayBuffer` each
 * costs more than everything else that is done for a small value. `containers`: it takes handles. `weight`: about how many bytes
 * more than these it takes in an engine's delta.
 */
export interface Encoded { readonly start: number; readonly end: number; readonly containers: boolean; readonly weight: number }

/** The right to say `done()`: the grant of a claim. */
export interface Grant {
  readonly group: string
  readonly run: string
  readonly key: string
  readonly grant: number
  /** The commit that says `done()`, once it is made. */
  seq: number | undefined
}

interface Edit {
  readonly op: number
  readonly handle: number
  readonly key?: string
  a: number
  b: number
  text: string
  parts: Encoded[]
  containers: boolean
  dropped: boolean
}

/** Where a segment's edits go: known to wasm by its index, or new and named by its id. */
export interface Target { readonly index: number; readonly id: Id; /** A new segment is to keep its history. */ readonly history?: boolean }

function sizeOf(value: Encoded): number {
  return value.end - value.start + value.weight
}

/** Where a section was. */
interface SectionSave { readonly edits: number; readonly values: number; readonly count: number; readonly bytes: number; readonly handles: number; readonly log: number; readonly claim: Grant | undefined }

/** Where a batch was, to come back to. */
export interface Savepoint { readonly undo: number; readonly sections: ReadonlyMap<Mirror, SectionSave> }

/** About what an edit takes in an engine's delta beside its values (`core/src/replica/commit.rs` reckons the same before it tries a commit). */
const EDIT_BYTES = 48

/** What the sections of a batch add up to. */
interface Tally { count: number; bytes: number }

/** The edits of one segment. */
export class Section {
  #edits: Edit[] = []
  readonly #keys = new Map<Node, Map<string, Edit>>()
  readonly #last = new Map<Node, Edit>()
  readonly handles: number
  /** The values of the edits, one behind the other. */
  readonly values = new Writer()
  claim: Grant | undefined = undefined
  count = 0
  bytes = 0
  /** Its segment is new. */
  creates = false
  readonly #tally: Tally

  constructor(readonly mirror: Mirror, readonly target: () => Target, tally: Tally = { count: 0, bytes: 0 }) {
    this.handles = mirror.nextHandle
    this.#tally = tally
  }

  #grow(count: number, bytes: number): void {
    this.count += count
    this.bytes += bytes
    this.#tally.count += count
    this.#tally.bytes += bytes
  }

  set(node: Node, key: string, value: Encoded): void {
    const known = this.#keys.get(node)?.get(key)
    if (known !== undefined && !known.containers && !value.containers) {
      if (known.op === EDIT.set) {
        this.#grow(0, sizeOf(value) - sizeOf(known.parts[0]!))
        known.parts[0] = value
        return
      }
      this.#drop(known)
    }
    this.#keep(node, key, this.#add(EDIT.set, node, { key, parts: [value], containers: value.containers }))
  }

  delete(node: Node, key: string): void {
    const known = this.#keys.get(node)?.get(key)
    if (known !== undefined && !known.containers) {
      if (known.op === EDIT.delete) return
      this.#drop(known)
    }
    this.#keep(node, key, this.#add(EDIT.delete, node, { key }))
  }

  default(node: Node, key: string, value: Encoded): void {
    this.#add(EDIT.default, node, { key, parts: [value], containers: value.containers })
  }

  insert(node: Node, index: number, count: number, value: Encoded): void {
    const last = this.#last.get(node)
    if (last?.op === EDIT.insert && index === last.a + last.b && (!value.containers || last === this.#edits.at(-1))) {
      last.parts.push(value)
      last.b += count
      last.containers ||= value.containers
      this.#grow(0, sizeOf(value) + count * WEIGHT.element)
      return
    }
    this.#last.set(node, this.#add(EDIT.insert, node, { a: index, b: count, parts: [value], containers: value.containers }))
    this.#grow(0, count * WEIGHT.element)
  }

  remove(node: Node, index: number, count: number): void {
    this.#last.set(node, this.#add(EDIT.remove, node, { a: index, b: count }))
  }

  put(node: Node, index: number, value: Encoded): void {
    this.#last.set(node, this.#add(EDIT.put, node, { a: index, parts: [value], containers: value.containers }))
  }

  move(node: Node, from: number, to: number): void {
    this.#last.set(node, this.#add(EDIT.move, node, { a: from, b: to }))
  }

  splice(node: Node, index: number, removed: number, text: string): void {
    const last = this.#last.get(node)
    if (last?.op === EDIT.splice && index >= last.a && index + removed <= last.a + last.text.length) {
      const at = index - last.a
      last.text = last.text.slice(0, at) + text + last.text.slice(at + removed)
      this.#grow(0, text.length)
      return
    }
    this.#last.set(node, this.#add(EDIT.splice, node, { a: index, b: removed, text }))
  }

  add(node: Node, by: number): void {
    const last = this.#last.get(node)
    if (last?.op === EDIT.add && Number.isSafeInteger(last.a) && Number.isSafeInteger(by) && Number.isSafeInteger(last.a + by)) last.a += by
    else this.#last.set(node, this.#add(EDIT.add, node, { a: by }))
  }

  include(node: Node, value: Encoded): void {
    this.#add(EDIT.include, node, { parts: [value] })
  }

  exclude(node: Node, value: Encoded): void {
    this.#add(EDIT.exclude, node, { parts: [value] })
  }

  root(value: Encoded): void {
    this.creates = true
    this.#edits.push({ op: EDIT.root, handle: 0, a: 0, b: 0, text: '', parts: [value], containers: true, dropped: false })
    this.#grow(1, sizeOf(value) + 2)
  }

  /** A container that nothing holds, under a fresh id. */
  near(id: Id, value: Encoded): void {
    this.#edits.push({ op: EDIT.near, handle: 0, key: id, a: 0, b: 0, text: '', parts: [value], containers: true, dropped: false })
    this.#grow(1, sizeOf(value) + 18)
  }

  mark(claim: Grant): void {
    this.claim = claim
    this.#edits.push({ op: EDIT.mark, handle: 0, key: claim.group, a: 0, b: 0, text: claim.run, parts: [], containers: false, dropped: false })
    this.#grow(1, claim.group.length + claim.run.length + 2)
  }

  #add(op: number, node: Node, part: Partial<Edit>): Edit {
    const edit: Edit = { op, handle: node.handle, a: 0, b: 0, text: '', parts: [], containers: false, dropped: false, ...part }
    this.#edits.push(edit)
    let bytes = EDIT_BYTES + edit.text.length + (edit.key?.length ?? 0)
    for (const part of edit.parts) bytes += sizeOf(part)
    this.#grow(1, bytes)
    return edit
  }

  #keep(node: Node, key: string, edit: Edit): void {
    let keys = this.#keys.get(node)
    if (keys === undefined) this.#keys.set(node, (keys = new Map()))
    keys.set(key, edit)
  }

  #drop(edit: Edit): void {
    edit.dropped = true
    this.#grow(-1, 0)
  }

  /** What there is so far. Later edits are not merged into it, so that they can be taken back alone. */
  savepoint(): SectionSave {
    this.#keys.clear()
    this.#last.clear()
    return { edits: this.#edits.length, values: this.values.length, count: this.count, bytes: this.bytes, handles: this.mirror.nextHandle, log: this.mirror.log?.length ?? 0, claim: this.claim }
  }

  /** Where it began. */
  get empty(): SectionSave {
    return { edits: 0, values: 0, count: 0, bytes: 0, handles: this.handles, log: 0, claim: undefined }
  }

  /** Forgets the edits since a savepoint; the mirror is as it was then. */
  rollbackTo(save: SectionSave): void {
    this.#keys.clear()
    this.#last.clear()
    this.#edits = this.#edits.slice(0, save.edits)
    this.values.truncate(save.values)
    this.#grow(save.count - this.count, save.bytes - this.bytes)
    this.claim = save.claim
    this.mirror.truncate(save.handles)
    this.mirror.log?.splice(save.log)
  }

  /** The edits as bytes (`core/src/edge.rs`). */
  encode(): Uint8Array {
    const w = new Writer(this.bytes + 64)
    for (const edit of this.#edits) {
      if (edit.dropped) continue
      w.u8(edit.op)
      if (edit.op === EDIT.mark) w.str(edit.key!).str(edit.text)
      else if (edit.op === EDIT.near) w.idOf(edit.key!)
      else if (edit.op !== EDIT.root) this.#encodePlaced(w, edit)
      for (const { start, end } of edit.parts) w.copy(this.values, start, end)
    }
    return w.slice()
  }

  #encodePlaced(w: Writer, edit: Edit): void {
    w.varint(edit.handle)
    switch (edit.op) {
      case EDIT.set: case EDIT.delete: case EDIT.default: w.str(edit.key!); break
      case EDIT.insert: case EDIT.remove: case EDIT.move: w.varint(edit.a).varint(edit.b); break
      case EDIT.put: w.varint(edit.a); break
      case EDIT.splice: w.varint(edit.a).varint(edit.b).str(edit.text); break
      case EDIT.add: w.f64(edit.a); break
    }
  }
}

/** The edits of one commit to be. */
export class Batch {
  readonly sections = new Map<Mirror, Section>()
  readonly undo: (() => void)[] = []
  /** Edits so far, and about how many bytes they take. */
  readonly tally: Tally = { count: 0, bytes: 0 }
  /** When it was opened. */
  readonly atMs = performance.now()

  constructor(readonly transact: boolean, readonly label = '') {}

  section(mirror: Mirror, target: () => Target): Section {
    let section = this.sections.get(mirror)
    if (section === undefined) {
      section = new Section(mirror, target, this.tally)
      this.sections.set(mirror, section)
      mirror.undo = this.undo
    }
    return section
  }

  /** Whether it makes a segment that keeps its history. */
  get makesHistory(): boolean {
    for (const section of this.sections.values()) if (section.creates && section.target().history === true) return true
    return false
  }

  savepoint(): Savepoint {
    return { undo: this.undo.length, sections: new Map([...this.sections].map(([mirror, section]) => [mirror, section.savepoint()])) }
  }

  /** Takes back what came after a savepoint; gives the mirrors of segments that were new. */
  rollbackTo(save: Savepoint): Mirror[] {
    const mirrors = [...this.sections.keys()]
    for (const mirror of mirrors) mirror.undo = undefined
    while (this.undo.length > save.undo) this.undo.pop()!()
    const gone: Mirror[] = []
    for (const [mirror, section] of [...this.sections]) {
      const before = save.sections.get(mirror)
      if (before !== undefined) {
        section.rollbackTo(before)
        mirror.undo = this.undo
        continue
      }
      section.rollbackTo(section.empty)
      this.sections.delete(mirror)
      if (section.creates) gone.push(mirror)
    }
    return gone
  }

  /** `label sections` of operation `commit`. */
  encode(w: Writer): void {
    const sections = [...this.sections.values()].filter(section => section.count > 0)
    w.str(this.label).varint(sections.length)
    for (const section of sections) {
      const { index, id, history } = section.target()
      if (index >= 0) w.varint(index + 1)
      else w.varint(0).raw(decodeId(id)!).u8(history === true ? 1 : 0)
      const claim = section.claim
      w.u8(claim === undefined ? 0 : 1)
      if (claim !== undefined) w.str(claim.group).str(claim.run).str(claim.key).varint(claim.grant)
      w.bytes(section.encode())
    }
  }

  /** Takes everything back. */
  rollback(): void {
    this.settle()
    for (let i = this.undo.length - 1; i >= 0; i--) this.undo[i]!()
    this.undo.length = 0
    for (const section of this.sections.values()) section.mirror.truncate(section.handles)
  }

  /** The mirrors stop logging how to undo. */
  settle(): void {
    for (const mirror of this.sections.keys()) mirror.undo = undefined
  }
}
