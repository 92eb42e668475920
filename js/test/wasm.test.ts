// The wasm module as the package ships it: made without waiting, one instance per replica, in every kind of program.
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { createContext, runInContext } from 'node:vm'
import { build } from 'esbuild'
import { instantiate } from '../src/wasm.js'

const OP_VERSION = 0
const js = fileURLToPath(new URL('../..', import.meta.url))
const version = (JSON.parse(readFileSync(`${js}package.json`, 'utf8')) as { version: string }).version
const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes)

/** What a fresh Node.js prints for a program. */
const run = (flags: string[], program: string): string =>
  execFileSync(process.execPath, ['--no-warnings', ...flags, '--eval', program], { cwd: js, encoding: 'utf8' })

test('the module is of the same version as the package', () => {
  const { Replica } = instantiate()
  assert.equal(text(new Replica(new Uint8Array()).call(OP_VERSION, new Uint8Array())), version)
})

test('an unknown operation throws and leaves the replica usable', () => {
  const { Replica } = instantiate()
  const replica = new Replica(new Uint8Array())
  assert.throws(() => replica.call(0xffff_ffff, new Uint8Array()), /unknown operation 4294967295/)
  assert.equal(text(replica.call(OP_VERSION, new Uint8Array())), version)
})

test('two instances share nothing: one grows, the other does not', () => {
  const [one, other] = [instantiate(), instantiate()]
  assert.notEqual(one.Replica, other.Replica)
  assert.notEqual(one.memory, other.memory)
  const [first, second] = [new one.Replica(new Uint8Array()), new other.Replica(new Uint8Array())]
  const before = other.memory.buffer.byteLength
  // A batch is copied into the instance it is for, and into no other.
  first.call(OP_VERSION, new Uint8Array(64 << 20))
  assert.ok(one.memory.buffer.byteLength >= 64 << 20)
  assert.equal(other.memory.buffer.byteLength, before)
  assert.equal(text(second.call(OP_VERSION, new Uint8Array())), version)
  assert.equal(text(first.call(OP_VERSION, new Uint8Array())), version)
})

test('an instance that trapped is dropped, and a new one works', () => {
  const broken = instantiate()
  const replica = new broken.Replica(new Uint8Array())
  // More than the cap on memory leaves room for.
  assert.throws(() => replica.call(OP_VERSION, new Uint8Array(2 ** 30)), WebAssembly.RuntimeError)
  const { Replica } = instantiate()
  assert.equal(text(new Replica(new Uint8Array()).call(OP_VERSION, new Uint8Array())), version)
})

test('memory is capped at 1 GiB, so that one replica cannot take the process', () => {
  const { memory } = instantiate()
  const pagesMax = (1 << 30) / 65_536
  assert.throws(() => memory.grow(pagesMax), RangeError)
})

test('collected replicas give their memory back, and the collector never enters an instance', () => {
  const program = `
    const { instantiate } = require('./dist/wasm.js')
    for (let i = 0; i < 400; i++) {
      const { Replica, memory } = instantiate()
      new Replica(new Uint8Array()).call(0, new Uint8Array())
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
    const { Replica } = instantiate()
    console.log(typeof HeapError, new TextDecoder().decode(new Replica(new Uint8Array()).call(0, new Uint8Array())))`
  assert.equal(run(['--input-type=commonjs'], program), `function ${version}\n`)
})

test('import works in a fresh process, and the first instance needs no await', () => {
  const program = `
    import { HeapError } from 'coheap'
    import { instantiate } from './dist/wasm.js'
    const { Replica } = instantiate()
    console.log(typeof HeapError, new TextDecoder().decode(new Replica(new Uint8Array()).call(0, new Uint8Array())))`
  assert.equal(run(['--input-type=module'], program), `function ${version}\n`)
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
    const { Replica } = instantiate()
    new TextDecoder().decode(new Replica(new Uint8Array()).call(0, new Uint8Array()))`
  assert.equal(runInContext(program, browser), version)
})
