// The comparison of mirrors with their engines: a mirror that is wrong ends the process, wherever the program looks away.
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { test } from 'node:test'

const program = (broken: string): string => `
  import { open } from '${new URL('../src/index.js', import.meta.url).href}'
  import { nodeOf } from '${new URL('../src/symbols.js', import.meta.url).href}'
  import { FakeRelay } from '${new URL('fake-relay.js', import.meta.url).href}'
  const relay = new FakeRelay()
  const opening = async () => {
    const heap = await open('ws://test/heap/h', { webSocket: relay.socket })
    heap.addEventListener('error', () => {})
    return heap
  }
  const [heap, other] = [await opening(), await opening()]
  heap.root.box = { n: 1 }
  const ref = heap.alloc({ n: 1 })
  await other.reach(await heap.flush())
  const wrong = live => { nodeOf(live).bag.n = 2 }
  ${broken}
  await Promise.all([heap, other].map(each => each.close().catch(() => {})))
  console.log('to the end')
`

function run(broken: string, debug: boolean): { status: number | null; out: string; err: string } {
  const env = { ...process.env }
  delete env['COHEAP_DEBUG']
  if (debug) env['COHEAP_DEBUG'] = '1'
  const { status, stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '--eval', program(broken)], { env, encoding: 'utf8', timeout: 60_000 })
  return { status, out: stdout, err: stderr }
}

const breaks: Record<string, string> = {
  'a transact whose error is caught': 'wrong(heap.root.box); try { heap.transact(() => { heap.root.x = 1 }) } catch {}',
  'a commit at the end of the turn': 'wrong(heap.root.box); heap.root.x = 1; await heap.flush().catch(() => {})',
  'a transact that is undone': 'wrong(heap.root.box); try { heap.transact(() => { heap.root.x = 1; throw new Error("no") }) } catch {}',
  'a commit from elsewhere': 'wrong(heap.root.box); other.root.x = 1; await other.flush(); await heap.sync().catch(() => {})',
  'a commit of two segments of which the other is right': 'wrong(ref.value); heap.transact(() => { heap.root.x = 1; ref.value.m = 1 })',
  'nothing at all, and closing': 'wrong(ref.value)',
}

for (const [when, broken] of Object.entries(breaks)) {
  test(`a wrong mirror is found at ${when}`, () => {
    const { status, err } = run(broken, true)
    assert.notEqual(status, 0)
    assert.match(err, /mirror of segment [\w-]{22} differs from its engine at (\.box)?\.n: 2, the engine has 1/)
  })
}

test('where nobody asked for it nothing is compared, and what is right passes', () => {
  assert.deepEqual(run(breaks['nothing at all, and closing']!, false), { status: 0, out: 'to the end\n', err: '' })
  assert.deepEqual(run('heap.root.x = 1; other.root.y = 2; await other.flush(); await heap.sync()', true), { status: 0, out: 'to the end\n', err: '' })
})
