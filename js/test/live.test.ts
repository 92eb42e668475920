// Live objects as a program meets them: plain objects, arrays, counters, texts and sets, and what is refused.
import assert from 'node:assert/strict'
import { afterEach, test } from 'node:test'
import { inspect } from 'node:util'
import { counter, move, open, set, snapshot, text, type Counter, type Heap, type LiveSet, type Text } from '../src/index.js'
import { closeClean, openOn } from './clean.js'
import { FakeRelay } from './fake-relay.js'

type Any = Record<string, any>
// Without the narrowing of assert.deepEqual, which would make a list's type that of its first content.
const same = (actual: unknown, expected: unknown): void => assert.deepEqual(actual, expected)
let heap: Heap<Any>
afterEach(() => closeClean(heap, { flush: false }))

async function root(): Promise<Any> {
  heap = await openOn<Any>(new FakeRelay())
  return heap.root
}

test('a live map behaves as a plain object', async () => {
  const r = await root()
  r['m'] = { b: 1, a: { c: [1] }, 10: 'ten', 9: 'nine' }
  const m = r['m'] as Any
  assert.deepEqual(Object.keys(m), ['9', '10', 'a', 'b'])
  assert.deepEqual({ ...m, a: 0 }, { 9: 'nine', 10: 'ten', a: 0, b: 1 })
  assert.ok('b' in m && !('z' in m))
  assert.equal(delete m['b'], true)
  assert.ok(!('b' in m))
  assert.equal(m['b'], undefined)
  assert.equal(JSON.stringify(m), '{"9":"nine","10":"ten","a":{"c":[1]}}')
  assert.equal(r['m'], m)
  assert.equal(Object.getPrototypeOf(m), Object.prototype)
  assert.deepEqual(Object.getOwnPropertyDescriptor(m, '9'), { value: 'nine', writable: true, enumerable: true, configurable: true })
  assert.deepEqual(Object.entries(m), [['9', 'nine'], ['10', 'ten'], ['a', m['a']]])
  assert.throws(() => Object.defineProperty(m, 'x', { value: 1 }), TypeError)
  assert.throws(() => Object.defineProperty(m, 'x', { get: () => 1 }), TypeError)
  assert.throws(() => Object.freeze(m), /snapshot/)
  assert.throws(() => Object.setPrototypeOf(m, null), TypeError)
  assert.throws(() => { m[Symbol('s') as never] = 1 }, TypeError)
  assert.ok(m.hasOwnProperty('a') && !m.hasOwnProperty('zz'))
  m['u'] = 1
  m['u'] = undefined
  assert.ok(!('u' in m))
  Object.assign(m, { x: 1, y: 2 })
  assert.equal(m['x'] + m['y'], 3)
  assert.throws(() => structuredClone(m), { name: 'DataCloneError', message: /snapshot\(it\)/ })
  assert.deepEqual(structuredClone(snapshot(m)), { 9: 'nine', 10: 'ten', a: { c: [1] }, x: 1, y: 2 })
  assert.match(inspect(m), /nine/)
  assert.equal(`${m as unknown as string}`, '[object Object]')
})

test('a heap prints its name and status, never its token', async () => {
  heap = await open<Any>('ws://test/heap/shop?token=hidden', { webSocket: new FakeRelay().socket, token: 'hidden' })
  heap.root['x'] = { y: 1 }
  for (const text of [inspect(heap), inspect(heap, { showHidden: true, depth: 20 }), String(heap), JSON.stringify(heap)]) assert.doesNotMatch(text ?? '', /hidden/)
  assert.match(inspect(heap), /name: 'shop', connection: 'online', unsaved: 0, segments: 1/)
})

test('S6: __proto__, constructor and toString are ordinary keys', async () => {
  const r = await root()
  for (const key of ['__proto__', 'constructor', 'toString']) {
    assert.equal(r[key], undefined)
    assert.ok(!(key in r))
    r[key] = { polluted: key }
    assert.equal((r[key] as Any)['polluted'], key)
  }
  assert.deepEqual(Object.keys(r), ['__proto__', 'constructor', 'toString'])
  assert.equal(({} as Any)['polluted'], undefined)
  r['parsed'] = JSON.parse('{"__proto__":{"polluted":1}}')
  assert.deepEqual(Object.keys(r['parsed'] as Any), ['__proto__'])
  assert.deepEqual(Object.keys(snapshot(r['parsed'] as Any)), ['__proto__'])
  assert.equal(Object.getPrototypeOf(snapshot(r['parsed'] as Any)), Object.prototype)
  delete r['__proto__']
  assert.ok(!('__proto__' in r))
})

test('a live list behaves as an array', async () => {
  const r = await root()
  r['l'] = [1, 2, 3]
  const l = r['l'] as any[]
  assert.ok(Array.isArray(l))
  assert.equal(l.length, 3)
  assert.equal(l.push(4, 5), 5)
  assert.equal(l.pop(), 5)
  assert.equal(l.shift(), 1)
  assert.equal(l.unshift(0), 4)
  same(l, [0, 2, 3, 4])
  same(l.splice(1, 2, 'a', 'b', 'c'), [2, 3])
  same([...l], [0, 'a', 'b', 'c', 4])
  same(l.map(v => v), l.slice())
  same(l.filter(v => typeof v === 'string'), ['a', 'b', 'c'])
  same(l.splice(-1), [4])
  assert.equal(l.indexOf('b'), 2)
  assert.ok(l.includes('c') && !l.includes('z'))
  assert.equal(l.at(-1), 'c')
  same(l.concat([1]), [0, 'a', 'b', 'c', 1])
  same(Object.keys(l), ['0', '1', '2', '3'])
  l[l.length] = 'd'
  l[0] = 'z'
  assert.equal(JSON.stringify(l), '["z","a","b","c","d"]')
  l.length = 2
  same(l, ['z', 'a'])
  same(l.fill(7), [7, 7])
  l.push(NaN)
  assert.ok(l.includes(NaN))
  same((l as any).toSorted().length, 3)
  for (const wrong of [() => l.sort(), () => l.reverse(), () => l.copyWithin(0, 1), () => { l[10] = 1 }, () => { l.length = 10 }, () => { delete l[0] }, () => { l[0] = undefined }, () => l.push(undefined)]) {
    assert.throws(wrong, TypeError)
  }
  assert.throws(() => { (l as unknown as Any)['name'] = 1 }, TypeError)
  assert.match(inspect(l), /7, 7/)
  same([l].flat(), [7, 7, NaN])
})

test('values keep their kinds, Dates and bytes are copied', async () => {
  const r = await root()
  const when = new Date(1234)
  const bytes = Uint8Array.of(1, 2, 3)
  Object.assign(r, { five: 5, big: 5n, minus: -0, nan: NaN, inf: -Infinity, no: null, yes: true, when, bytes, big63: 2n ** 63n - 1n, bad: new Date(NaN) })
  when.setTime(0)
  bytes[0] = 9
  assert.equal(r['five'], 5)
  assert.equal(r['big'], 5n)
  assert.ok(Object.is(r['minus'], -0) && Number.isNaN(r['nan']) && r['inf'] === -Infinity && r['no'] === null && r['yes'] === true)
  assert.equal((r['when'] as Date).getTime(), 1234)
  assert.ok(Number.isNaN((r['bad'] as Date).getTime()))
  ;(r['when'] as Date).setTime(7)
  assert.equal((r['when'] as Date).getTime(), 1234)
  assert.deepEqual([...r['bytes'] as Uint8Array], [1, 2, 3])
  delete r['big']
  delete r['big63']
  delete r['bad']
  assert.equal(JSON.stringify(r), '{"bytes":"AQID","five":5,"inf":null,"minus":0,"nan":null,"no":null,"when":"1970-01-01T00:00:01.234Z","yes":true}')
  await heap.flush()
})

test('what cannot be stored is refused with its path, and nothing changes', async () => {
  const r = await root()
  r['a'] = { list: [{}] }
  const before = snapshot(r)
  const cyclic: Any = { x: {} }
  ;(cyclic['x'] as Any)['back'] = cyclic
  class Thing { x = 1 }
  const wrong: [unknown, RegExp, unknown][] = [
    [new Thing(), /a\.list\[0\]\.v.*Thing/s, TypeError], [() => 1, /function/, TypeError], [Symbol('x'), /symbol/, TypeError], [new Map(), /Map/, TypeError],
    [cyclic, /a\.list\[0\]\.v\.x\.back.*contains itself/, TypeError], [[1, undefined], /v\[1\].*undefined/, TypeError], [{ n: 2n ** 63n }, /v\.n.*bigint/, RangeError],
    [{ deep: Promise.resolve() }, /v\.deep.*Promise/, TypeError], [{ [Symbol('k')]: 1 }, /symbols/, TypeError],
  ]
  const target = (r['a'] as Any)['list'][0] as Any
  for (const [value, message, type] of wrong) {
    assert.throws(() => { target['v'] = value }, (error: Error) => error instanceof (type as typeof Error) && message.test(error.message), String(message))
  }
  let nested: unknown = 1
  for (let i = 0; i < 70; i++) nested = { n: nested }
  assert.throws(() => { target['v'] = nested }, { code: 'ERR_TOO_LARGE' })
  assert.throws(() => { target['v'] = 'x'.repeat(256 * 1024 + 1) }, { code: 'ERR_TOO_LARGE' })
  assert.throws(() => { target['v'] = new Uint8Array(256 * 1024 + 1) }, { code: 'ERR_TOO_LARGE' })
  assert.throws(() => { target['k'.repeat(5000)] = 1 }, { code: 'ERR_TOO_LARGE' })
  assert.deepEqual(snapshot(r), before)
  target['ok'] = { one: { two: [1, 2, { three: 3 }] } }
  await heap.flush()
})

test('a live object has one place', async () => {
  const r = await root()
  r['a'] = { x: 1 }
  r['l'] = [{ y: 1 }, { y: 2 }]
  r['a'] = r['a']
  r['l'][0] = r['l'][0]
  assert.throws(() => { r['b'] = r['a'] }, /refOf|move|snapshot/)
  assert.throws(() => { r['l'].push(r['a']) }, /refOf/)
  assert.throws(() => { r['c'] = { nested: r['a'] } }, /c\.nested/)
  r['b'] = snapshot(r['a'] as Any)
  assert.deepEqual(r['b'], { x: 1 })
  const [first, second] = r['l'] as Any[]
  move(r['l'], 0, 1)
  assert.equal(r['l'][1], first)
  assert.equal(r['l'][0], second)
  assert.throws(() => move(r['l'], 0, 5), RangeError)
  assert.throws(() => move([1, 2], 0, 1), TypeError)
})

test('S5: what was taken out shows its last values and takes no edits', async () => {
  const r = await root()
  r['l'] = [{ n: 1, deep: { x: 1 } }, { n: 2 }]
  const first = r['l'][0] as Any
  const deep = first['deep'] as Any
  assert.equal(r['l'].shift(), first)
  assert.equal(first['n'], 1)
  for (const edit of [() => { first['n'] = 5 }, () => { deep['x'] = 2 }, () => { delete first['n'] }]) assert.throws(edit, { code: 'ERR_DELETED' })
  assert.equal(deep['x'], 1)
  r['m'] = { t: text('x'), c: counter(1), s: set(['a']), l: [1] }
  const { t, c, s, l } = r['m'] as { t: Text; c: Counter; s: LiveSet<string>; l: number[] }
  r['m'] = 1
  for (const edit of [() => t.insert(0, 'y'), () => c.add(1), () => s.add('b'), () => l.push(2)]) assert.throws(edit, { code: 'ERR_DELETED' })
  assert.deepEqual([String(t), c.value, [...s], [...l]], ['x', 1, ['a'], [1]])
})

test('drafts work before they are assigned and are live afterwards', async () => {
  const r = await root()
  const c = counter(5)
  const t = text('ab')
  const s = set<number>([3, 1, 2])
  c.add(1)
  t.insert(1, 'x')
  s.add(0)
  assert.deepEqual([c.value, t.toString(), [...s], snapshot(c as never)], [6, 'axb', [0, 1, 2, 3], 6])
  Object.assign(r, { c, t, s })
  assert.equal(r['c'], c)
  c.add(1)
  t.delete(0, 1)
  s.delete(0)
  assert.deepEqual(snapshot(r), { c: 7, s: [1, 2, 3], t: 'xb' })
  assert.equal(JSON.stringify(r), '{"c":7,"s":[1,2,3],"t":"xb"}')
  assert.throws(() => { r['again'] = c }, /in the heap already/)
  assert.throws(() => counter('5' as never), TypeError)
  assert.throws(() => set([{} as never]), TypeError)
  assert.throws(() => c.add(NaN), TypeError)
  await heap.flush()
})

test('S10: text indexes are UTF-16, a cut inside a pair moves to its start, and bounds throw', async () => {
  const r = await root()
  r['t'] = text('a😀b')
  const t = r['t'] as Text
  assert.equal(t.length, 4)
  t.insert(2, '-')
  assert.equal(String(t), 'a-😀b')
  t.delete(2, 1)
  assert.equal(String(t), 'a-😀b')
  t.delete(3, 1)
  assert.equal(String(t), 'a-b')
  for (const wrong of [() => t.insert(4, 'x'), () => t.insert(-1, 'x'), () => t.delete(2, 2), () => t.splice(0.5, 0, 'x'), () => t.anchor(9)]) assert.throws(wrong, RangeError)
  const anchor = t.anchor(2)
  t.insert(0, '123')
  assert.equal(anchor.index, 5)
  t.delete(0, 6)
  assert.equal(anchor.index, 0)
  t.update('the quick brown fox')
  t.update('the slow brown 🦊 fox')
  assert.equal(String(t), 'the slow brown 🦊 fox')
  t.insert(0, '\ud800')
  assert.equal(String(t)[0], '\ufffd')
  delete r['t']
  assert.equal(anchor.index, undefined)
  await heap.flush()
})
