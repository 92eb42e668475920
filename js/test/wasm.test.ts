// The wasm module as the package ships it: made without waiting, one instance per replica, in every kind of program.
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { createContext, runInContext } from 'node:vm'
import { build } from 'esbuild'
import { instantiate } from '../src/wasm.js'

/** Options of a replica that is opened for nothing: a seed, a heap's name, no name of its own, no flags, no limit. */
const OPTIONS = Uint8Array.of(...new Uint8Array(32).fill(7), 1, 104, 0, 0, 0)
const OP_TICK = 0
const OP_STATS = 18
const NOW = Uint8Array.of(0)
const RECORD_STATS = 21
const js = fileURLToPath(new URL('../..', import.meta.url))

/** What a fresh Node.js prints for a program. */
const run = (flags: string[], program: string): string =>
  execFileSync(process.execPath, ['--no-warnings', ...flags, '--eval', program], { cwd: js, encoding: 'utf8' })

test('a replica answers, and refuses options that are none', () => {
  const { Replica } = instantiate(() => {})
  assert.equal(new Replica(OPTIONS).call(OP_STATS, NOW)[0], RECORD_STATS)
  assert.throws(() => new Replica(new Uint8Array()), /do not match/)
})

test('an unknown operation throws and leaves the replica usable', () => {
  const { Replica } = instantiate(() => {})
  const replica = new Replica(OPTIONS)
  assert.throws(() => replica.call(0xffff_ffff, NOW), Error)
  assert.equal(replica.call(OP_STATS, NOW)[0], RECORD_STATS)
})

test('two instances share nothing: one grows, the other does not', () => {
  const [one, other] = [instantiate(() => {}), instantiate(() => {})]
  assert.notEqual(one.Replica, other.Replica)
  assert.notEqual(one.memory, other.memory)
  const [first, second] = [new one.Replica(OPTIONS), new other.Replica(OPTIONS)]
  const before = other.memory.buffer.byteLength
  // A batch is copied into the instance it is for, and into no other.
  assert.throws(() => first.call(OP_TICK, new Uint8Array(64 << 20)), /do not match/)
  assert.ok(one.memory.buffer.byteLength >= 64 << 20)
  assert.equal(other.memory.buffer.byteLength, before)
  assert.equal(second.call(OP_STATS, NOW)[0], RECORD_STATS)
  assert.equal(first.call(OP_STATS, NOW)[0], RECORD_STATS)
})

test('an instance that trapped is dropped, and a new one works', () => {
  const broken = instantiate(() => {})
  const replica = new broken.Replica(OPTIONS)
  // More than the cap on memory leaves room for.
  assert.throws(() => replica.call(OP_TICK, new Uint8Array(2 ** 30)), WebAssembly.RuntimeError)
  const { Replica } = instantiate(() => {})
  assert.equal(new Replica(OPTIONS).call(OP_STATS, NOW)[0], RECORD_STATS)
})

test('memory is capped at 1 GiB, so that one replica cannot take the process', () => {
  const { memory } = instantiate(() => {})
  const pagesMax = (1 << 30) / 65_536
  assert.throws(() => memory.grow(pagesMax), RangeError)
})

test('collected replicas give their memory back, and the collector never enters an instance', () => {
  const program = `
    const { instantiate } = require('./dist/wasm.js')
    for (let i = 0; i < 400; i++) {
      const { Replica, memory } = instantiate(() => {})
      new Replica(Uint8Array.of(...new Uint8Array(32).fill(7), 1, 104, 0, 0, 0)).call(0, Uint8Array.of(0))
      memory.grow(160)
      if (i % 20 === 0) gc()
    }
    console.log('done')`
  assert.equal(run(['--expose-gc'], program), 'done\n')
})

test('require works in a fresh process, and the first instance needs no await', () => {
  const program = `
    const { HeapError } = require('coheap')
    const { instantiate } = require('./dist/wasm.js')
    const { Replica } = instantiate(() => {})
    console.log(typeof HeapError, new Replica(Uint8Array.of(...new Uint8Array(32).fill(7), 1, 104, 0, 0, 0)).call(18, Uint8Array.of(0))[0])`
  assert.equal(run(['--input-type=commonjs'], program), 'function 21\n')
})

test('import works in a fresh process, and the first instance needs no await', () => {
  const program = `
    import { HeapError } from 'coheap'
    import { instantiate } from './dist/wasm.js'
    const { Replica } = instantiate(() => {})
    console.log(typeof HeapError, new Replica(Uint8Array.of(...new Uint8Array(32).fill(7), 1, 104, 0, 0, 0)).call(18, Uint8Array.of(0))[0])`
  assert.equal(run(['--input-type=module'], program), 'function 21\n')
})

test('a bundle of the whole package for browsers needs no plugin, and opens over the global WebSocket', async () => {
  const bundle = await build({
    stdin: { contents: `import { open } from './dist/index.js'; globalThis.open = open`, resolveDir: js },
    bundle: true, platform: 'browser', format: 'iife', write: false, logLevel: 'silent',
  })
  assert.deepEqual(bundle.warnings, [])
  const urls: string[] = []
  class Socket {
    constructor(url: string) { urls.push(url) }
    addEventListener(): void {}
    close(): void {}
  }
  const browser = createContext({
    WebAssembly, TextDecoder, TextEncoder, Uint8Array, DataView, FinalizationRegistry, WeakRef, atob, btoa, crypto, performance, URL, AbortController, AbortSignal,
    setTimeout, clearTimeout, queueMicrotask, WebSocket: Socket,
  })
  const error = await runInContext(`${bundle.outputFiles[0]!.text}; open('wss://x/heap/y', { timeoutMs: 50 }).catch(error => error.code)`, browser) as unknown
  assert.equal(error, 'ERR_TIMEOUT')
  assert.deepEqual(urls, ['wss://x/heap/y'])
})

test('a bundle for browsers needs no plugin and nothing of Node.js', async () => {
  const bundle = await build({
    stdin: { contents: `import { instantiate } from './dist/wasm.js'; globalThis.instantiate = instantiate`, resolveDir: js },
    bundle: true,
    minify: true,
    platform: 'browser',
    format: 'iife',
    write: false,
    logLevel: 'silent',
  })
  assert.deepEqual(bundle.warnings, [])
  const browser = createContext({ WebAssembly, TextDecoder, Uint8Array, DataView, FinalizationRegistry, atob })
  const program = `${bundle.outputFiles[0]!.text}
    const { Replica } = instantiate(() => {})
    new Replica(Uint8Array.of(...new Uint8Array(32).fill(7), 1, 104, 0, 0, 0)).call(18, Uint8Array.of(0))[0]`
  assert.equal(runInContext(program, browser), RECORD_STATS)
})
