// A relay process for end-to-end tests: the release binary, a data directory of its own, a port that stays.
import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { createInterface } from 'node:readline'

/** What runs; a test that fails leaves some, and they would keep the runner. */
const children = new Set()

const binary = process.env.COHEAP_RELAY_BIN ?? path.resolve('target/release/coheap-relay')

export class Relay {
  #child
  #exited
  #port = 0
  data = mkdtempSync(path.join(tmpdir(), 'coheap-e2e-'))

  async start(...flags) {
    this.#child = spawn(binary, ['--listen', `127.0.0.1:${this.#port}`, '--data', this.data, ...flags], { stdio: ['ignore', 'pipe', 'pipe'] })
    this.#exited = new Promise((resolve) => this.#child.once('exit', (code, signal) => resolve(code ?? signal)))
    const line = await Promise.race([
      new Promise((resolve) => createInterface({ input: this.#child.stdout }).once('line', resolve)),
      this.#exited.then((code) => { throw new Error(`the relay ended with ${code} before it listened`) }),
    ])
    this.#port = Number(/^listening on ws:\/\/127\.0\.0\.1:(\d+)$/.exec(line)[1])
    return this
  }

  url(heap) {
    return `ws://127.0.0.1:${this.#port}/heap/${heap}`
  }

  /** Ends the process; its exit code or signal. */
  async stop(signal = 'SIGTERM') {
    this.#child.kill(signal)
    return this.#exited
  }

  async dispose() {
    for (const child of children) child.kill('SIGKILL')
    await this.stop('SIGKILL')
    rmSync(this.data, { recursive: true, force: true })
  }
}


/** A Node process that runs `program` (an ES module with `heap`, `args` and `tell` at hand) on an open heap. It fails if a commit was refused, or anything that is not in `args.expected`. With `args.pages` its wasm may have so little memory. */
export function startProcess(url, program, args = {}) {
  const source = `import * as coheap from 'coheap'
    import { closeClean } from ${JSON.stringify(new URL('clean.mjs', import.meta.url).href)}
    import { limitMemory } from ${JSON.stringify(new URL('small-memory.mjs', import.meta.url).href)}
    const args = ${JSON.stringify(args)}
    if (args.pages !== undefined) limitMemory(args.pages)
    const tell = (message) => process.stdout.write(JSON.stringify(message) + '\\n')
    const heap = await coheap.open(${JSON.stringify(url)}, args.options ?? {})
    ${program}
    await closeClean(heap, args.expected)`
  const child = spawn(process.execPath, ['--input-type=module', '--eval', source], { stdio: ['ignore', 'pipe', 'inherit'] })
  children.add(child)
  child.once('exit', () => children.delete(child))
  const told = []
  createInterface({ input: child.stdout }).on('line', (line) => told.push(JSON.parse(line)))
  const exited = new Promise((resolve) => child.once('exit', (code, signal) => resolve(code ?? signal)))
  return { child, told, exited }
}
