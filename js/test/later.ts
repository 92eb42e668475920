// The package as it is, but for when the full module is there: copies of it, each with its own state, in which the file that
// is fetched waits for the test. A copy has the helpers of the tests too, so that all of a program is of one package.
import { cp, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { pathToFileURL } from 'node:url'
import type { Arrival } from './world.js'

/** A copy of the tests' world, and what decides over the full module in it. */
export interface Later { readonly Program: typeof import('./world.js').Program; readonly module: Arrival }

const homes: string[] = []

/** A fresh copy, in which nothing has been fetched yet. */
export async function withoutModule(): Promise<Later> {
  const home = await mkdtemp(join(tmpdir(), 'coheap-'))
  homes.push(home)
  for (const part of ['src', 'test']) {
    await cp(new URL(`../${part}/`, import.meta.url), join(home, part), { recursive: true, filter: from => basename(from) !== 'generated' && !from.endsWith('.test.js') })
  }
  await writeFile(join(home, 'package.json'), '{"type":"module"}')
  // What is compiled is compiled once, by the originals, which hold nothing else.
  const original = (file: string): string => JSON.stringify(new URL(`../src/${file}`, import.meta.url).href)
  await writeFile(join(home, 'src/wasm.js'), `export * from ${original('wasm.js')}\n`)
  await writeFile(join(home, 'src/wasm-full.js'), `export { instantiate } from ${original('wasm-full.js')}
let attempt = next()
function next() {
  const made = {}
  made.promise = new Promise((resolve, reject) => Object.assign(made, { resolve, reject }))
  made.promise.catch(() => {})
  return made
}
export const prepare = () => attempt.promise
export const arrive = () => attempt.resolve()
export const fail = () => {
  const { reject } = attempt
  attempt = next()
  reject(new Error('not this time'))
}
`)
  const at = (file: string): string => pathToFileURL(join(home, file)).href
  // Read here, so that the fetch in the program waits for nothing but its arrival.
  const module = await import(at('src/wasm-full.js')) as Arrival
  const { Program } = await import(at('test/world.js')) as typeof import('./world.js')
  return { Program, module }
}

/** For `after`. */
export async function removeCopies(): Promise<void> {
  for (const home of homes.splice(0)) await rm(home, { recursive: true })
}
