// Mirror, batch and patches without a heap: what a program writes becomes edits, what patches say becomes values, and undoing
// restores everything.
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Batch, type Section } from '../src/batch.js'
import { EDIT, KIND, Reader, TAG, Writer } from '../src/edge.js'
import { counter, move, set, snapshot, text, type Counter, type LiveSet, type Text } from '../src/index.js'
import { Mirror } from '../src/mirror.js'
import { applyPatches, compare, resetMirror } from '../src/patches.js'
import { liveOf } from '../src/proxy.js'
import { RefTable, type RefHome } from '../src/refs.js'
import { setHost, type WriteHost } from '../src/write.js'

const home: RefHome = { heapName: 'h', peekRef: () => undefined, valueOfRef: () => ({}), loadRef: async () => ({}) }
const refs = new RefTable(home)
const makeRef = refs.of.bind(refs)

/** A mirror whose writes go into a batch that nobody commits. */
function world<T extends object>(): { mirror: Mirror; root: T; batch: () => Batch; section: () => Section; next: () => void } {
  const mirror = new Mirror()
  let batch = new Batch(true)
  const host: WriteHost = { ...home, section: of => batch.section(of, () => ({ index: 0, id: '' })), wrote: () => {}, inTransact: true, hasRoom: () => true, mayWrite: () => {}, closeBatch: () => {} }
  setHost(mirror, host)
  applyPatches(mirror, new Writer().u8(EDIT.root).u8(KIND.map).slice(), makeRef)
  return { mirror, root: liveOf(mirror.root!) as T, batch: () => batch, section: () => [...batch.sections.values()][0]!, next: () => { batch.settle(); batch = new Batch(true) } }
}

/** The edits of the open batch, as `[op, ...fields]`. */
function edits(section: Section): unknown[][] {
  const r = new Reader(section.encode())
  const value = (): unknown => {
    const tag = r.u8()
    if (tag === TAG.null) return null
    if (tag === TAG.false || tag === TAG.true) return tag === TAG.true
    if (tag === TAG.f64) return r.f64()
    if (tag === TAG.int) return r.zigzag()
    if (tag === TAG.str) return r.str()
    if (tag === TAG.bigint) return r.zigzagBig()
    if (tag === TAG.container) {
      const kind = r.u8()
      if (kind === KIND.map) return Object.fromEntries(r.list(() => [r.str(), value()]))
      if (kind === KIND.counter) return { counter: r.f64() }
      if (kind === KIND.text) return { text: r.str() }
      const list = r.list(value)
      return kind === KIND.set ? { set: list } : list
    }
    throw new Error(`value ${tag}`)
  }
  const out: unknown[][] = []
  while (r.left > 0) {
    const op = r.u8()
    const handle = op === EDIT.root || op === EDIT.mark ? 0 : r.varint()
    if (op === EDIT.set) out.push(['set', handle, r.str(), value()])
    else if (op === EDIT.delete) out.push(['delete', handle, r.str()])
    else if (op === EDIT.insert) out.push(['insert', handle, r.varint(), r.list(value)])
    else if (op === EDIT.remove) out.push(['remove', handle, r.varint(), r.varint()])
    else if (op === EDIT.put) out.push(['put', handle, r.varint(), value()])
    else if (op === EDIT.move) out.push(['move', handle, r.varint(), r.varint()])
    else if (op === EDIT.splice) out.push(['splice', handle, r.varint(), r.varint(), r.str()])
    else if (op === EDIT.add) out.push(['add', handle, r.f64()])
    else if (op === EDIT.include) out.push(['include', handle, value()])
    else if (op === EDIT.exclude) out.push(['exclude', handle, value()])
    else throw new Error(`edit ${op}`)
  }
  return out
}

test('a key set twice crosses once, and neighbours become one edit', () => {
  const { root, section } = world<{ a: number; list: number[]; text: Text; n: Counter }>()
  root.list = []
  root.text = text()
  root.n = counter()
  root.a = 1
  for (let i = 0; i < 5; i++) root.list.push(i)
  root.a = 2
  for (const c of 'abc') root.text.insert(root.text.length, c)
  root.text.delete(2, 1)
  root.n.add(2)
  root.n.add(3)
  assert.deepEqual(edits(section()), [
    ['set', 0, 'list', []], ['set', 0, 'text', { text: '' }], ['set', 0, 'n', { counter: 0 }], ['set', 0, 'a', 2],
    ['insert', 1, 0, [0, 1, 2, 3, 4]], ['splice', 2, 0, 0, 'ab'], ['add', 3, 5],
  ])
})

test('edits that make containers keep their order, so that handles agree', () => {
  const { root, section, mirror } = world<{ list: object[]; x: object }>()
  root.list = []
  root.list.push({ a: 1 })
  root.x = { b: {} }
  root.list.push({ c: 1 })
  root.list.push(5 as never)
  assert.deepEqual(edits(section()), [
    ['set', 0, 'list', []], ['insert', 1, 0, [{ a: 1 }]], ['set', 0, 'x', { b: {} }], ['insert', 1, 1, [{ c: 1 }, 5]],
  ])
  assert.deepEqual(mirror.nodes.map(node => node!.handle), [0, 1, 2, 3, 4, 5])
  const { list } = root
  assert.equal((list[1] as { c: number }).c, 1)
})

test('a set over a delete, and a delete over a set, cross as one', () => {
  const { root, section, next } = world<Record<string, number>>()
  root['a'] = 1
  root['b'] = 2
  next()
  delete root['a']
  root['a'] = 3
  root['b'] = 4
  delete root['b']
  assert.deepEqual(edits(section()), [['set', 0, 'a', 3], ['delete', 0, 'b']])
})

test('rolling back restores values, identities and handles', () => {
  const { root, batch, next, mirror } = world<{ n: number; list: { v: number }[]; t: Text; c: Counter; s: LiveSet<string>; more?: unknown }>()
  Object.assign(root, { n: 1, list: [{ v: 1 }, { v: 2 }, { v: 3 }], t: text('hello'), c: counter(5), s: set(['a', 'b']) })
  const before = snapshot(root)
  const first = root.list[0]
  const handles = mirror.nextHandle
  next()
  root.n = 2
  root.more = { x: [1, 2] }
  move(root.list, 0, 2)
  root.list.splice(0, 2, { v: 9 })
  root.list[0] = { v: 10 }
  root.t.update('jello!')
  root.c.add(7)
  root.s.delete('a')
  root.s.add('z')
  delete (root as { n?: number }).n
  const draft = counter(1)
  root.more = draft
  batch().rollback()
  assert.deepEqual(snapshot(root), before)
  assert.equal(root.list[0], first)
  assert.equal(mirror.nextHandle, handles)
  assert.equal(draft.value, 1)
})

test('patches make values, and the same handle is the same object', () => {
  const { mirror, root } = world<{ a: { b: number[] }; t: Text }>()
  const w = new Writer()
  w.u8(EDIT.set).varint(0).str('a').u8(TAG.container).u8(KIND.map).varint(1)
  w.u8(EDIT.set).varint(1).str('b').u8(TAG.container).u8(KIND.list).varint(2)
  w.u8(EDIT.insert).varint(2).varint(0).varint(2).number(1).number(2.5)
  w.u8(EDIT.set).varint(0).str('t').u8(TAG.container).u8(KIND.text).varint(3)
  w.u8(EDIT.splice).varint(3).varint(0).varint(0).str('hi')
  applyPatches(mirror, w.slice(), makeRef)
  assert.deepEqual(snapshot(root), { a: { b: [1, 2.5] }, t: 'hi' })
  const { a } = root
  assert.equal(compare(mirror, new Writer().u8(EDIT.root).u8(KIND.map).raw(w.slice()).slice(), makeRef), undefined)
  const again = new Writer().u8(EDIT.root).u8(KIND.map).u8(EDIT.set).varint(0).str('a').u8(TAG.container).u8(KIND.map).varint(1).u8(EDIT.set).varint(1).str('x').number(1)
  resetMirror(mirror, again.slice(), makeRef)
  assert.equal(root.a, a)
  assert.deepEqual(snapshot(root), { a: { x: 1 } })
  const before = new Writer().u8(EDIT.root).u8(KIND.map).raw(w.slice()).slice()
  assert.match(compare(mirror, before, makeRef) ?? '', /snapshot from before/)
  mirror.root!.snap = undefined
  for (const node of mirror.nodes) node!.snap = undefined
  assert.match(compare(mirror, before, makeRef) ?? '', /the engine has/)
  assert.equal(compare(mirror, again.slice(), makeRef), undefined)
  ;(mirror.nodes[1]!).places = 2
  assert.match(compare(mirror, again.slice(), makeRef) ?? '', /places/)
})

test('patches that do not fit are an error, not a wrong value', () => {
  const { mirror } = world()
  for (const bad of [
    new Writer().u8(EDIT.set).varint(9).str('a').number(1), new Writer().u8(EDIT.insert).varint(0).varint(0).varint(0), new Writer().u8(99).varint(0),
    new Writer().u8(EDIT.set).varint(0).str('a').u8(77), new Writer().u8(EDIT.splice).varint(0).varint(3).varint(0).str(''),
  ]) assert.throws(() => applyPatches(mirror, bad.slice(), makeRef), { code: 'ERR_ENGINE' })
})

test('snapshots are frozen and unchanged parts keep their identity', () => {
  const { root } = world<{ a: { x: number }; b: { y: number }[] }>()
  Object.assign(root, { a: { x: 1 }, b: [{ y: 1 }, { y: 2 }] })
  const one = snapshot(root)
  assert.equal(snapshot(root), one)
  root.b[1]!.y = 3
  const two = snapshot(root)
  assert.notEqual(two, one)
  assert.equal(two.a, one.a)
  assert.equal(two.b[0], one.b[0])
  assert.notEqual(two.b[1], one.b[1])
  assert.throws(() => { (two as { a: unknown }).a = 1 }, TypeError)
  assert.ok(Object.isFrozen(two.b))
})
