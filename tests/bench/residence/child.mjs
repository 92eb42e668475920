// What every measured process has: its arguments, its answer, its memory, and the same data as all others.
import { readFileSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'

export const args = JSON.parse(process.argv[2])

export function tell(figures) {
  process.stdout.write(`${JSON.stringify(figures)}\n`)
}

/** A package of a peer. */
export function peer(name) {
  return createRequire(path.join(args.peers, 'package.json'))(name)
}

export const keyOf = (n) => `key-${String(n).padStart(7, '0')}`
/** 40 bytes. */
export const valueOf = (n) => `value ${String(n).padStart(7, '0')} of a map that is not small`.slice(0, 40).padEnd(40, '.')
export const objectOf = (n) => ({ id: n, name: `object ${n}`, count: n % 17 })

export const tenKeys = (n) => Object.fromEntries(Array.from({ length: 10 }, (_, k) => [`k${k}`, n + k]))

/** Garbage is gone, and what lets go late has let go. */
export async function settle() {
  for (let n = 0; n < 4; n++) {
    globalThis.gc()
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}

/** Bytes of JavaScript's heap and beside it; what V8 calls external has the pages of wasm in it. */
export function used() {
  const { heapUsed, external } = process.memoryUsage()
  return heapUsed + external
}

function status(name) {
  return Number(new RegExp(`^${name}:\\s*(\\d+) kB$`, 'm').exec(readFileSync('/proc/self/status', 'utf8'))[1]) / 1024
}

/** MB that are resident now. */
export const resident = () => status('VmRSS')
/** MB that were resident at the most, since the last `forgetPeak`. */
export const peak = () => status('VmHWM')
export const forgetPeak = () => writeFileSync('/proc/self/clear_refs', '5')

export function expect(value, expected) {
  if (value !== expected) throw new Error(`read ${JSON.stringify(value)}, where ${JSON.stringify(expected)} was written`)
}
