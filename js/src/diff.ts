/**
 * The smallest diff of two strings, for `text.update(s)`.
 *
 * What is equal at both ends is left alone; the middle is compared by code points with Myers' algorithm while the strings
 * are alike, and replaced whole when they differ in more than `DIFFERENCES_MAX` places: finding the best way to change
 * nearly everything costs much and tells readers nothing.
 */

const DIFFERENCES_MAX = 400

/** One replaced run; `at` counts UTF-16 units of the old string. */
export interface Splice { readonly at: number; readonly removed: number; readonly inserted: string }

/** The runs that turn `before` into `after`, in ascending order. */
export function smallestDiff(before: string, after: string): Splice[] {
  if (before === after) return []
  const a = Array.from(before)
  const b = Array.from(after)
  let start = 0
  while (start < a.length && start < b.length && a[start] === b[start]) start++
  let endA = a.length
  let endB = b.length
  while (endA > start && endB > start && a[endA - 1] === b[endB - 1]) {
    endA--
    endB--
  }
  const middleA = a.slice(start, endA)
  const middleB = b.slice(start, endB)
  const at = units(a, 0, start)
  if (middleA.length === 0 || middleB.length === 0) return [{ at, removed: units(middleA, 0, middleA.length), inserted: middleB.join('') }]
  const steps = shortestEdit(middleA, middleB)
  if (steps === undefined) return [{ at, removed: units(middleA, 0, middleA.length), inserted: middleB.join('') }]
  return joinSteps(middleA, middleB, steps, at)
}

/** Myers' greedy algorithm: for each common code point the pair of its places, or `undefined` if too much differs. */
function shortestEdit(a: readonly string[], b: readonly string[]): [number, number][] | undefined {
  const max = Math.min(a.length + b.length, DIFFERENCES_MAX)
  const trace: Int32Array[] = []
  let furthest = new Int32Array(2 * max + 3)
  const middle = max + 1
  for (let d = 0; d <= max; d++) {
    trace.push(furthest.slice())
    for (let k = -d; k <= d; k += 2) {
      const down = k === -d || (k !== d && furthest[middle + k - 1]! < furthest[middle + k + 1]!)
      let x = down ? furthest[middle + k + 1]! : furthest[middle + k - 1]! + 1
      let y = x - k
      while (x < a.length && y < b.length && a[x] === b[y]) {
        x++
        y++
      }
      furthest[middle + k] = x
      if (x >= a.length && y >= b.length) return backtrack(a, b, trace, middle)
    }
  }
  return undefined
}

function backtrack(a: readonly string[], b: readonly string[], trace: readonly Int32Array[], middle: number): [number, number][] {
  const common: [number, number][] = []
  let x = a.length
  let y = b.length
  for (let d = trace.length - 1; d >= 0; d--) {
    const furthest = trace[d]!
    const k = x - y
    const down = k === -d || (k !== d && furthest[middle + k - 1]! < furthest[middle + k + 1]!)
    const fromK = down ? k + 1 : k - 1
    const fromX = d === 0 ? 0 : furthest[middle + fromK]!
    const fromY = d === 0 ? 0 : fromX - fromK
    while (x > fromX && y > fromY && x > 0 && y > 0 && a[x - 1] === b[y - 1]) common.push([--x, --y])
    x = fromX
    y = fromY
  }
  return common.reverse()
}

function joinSteps(a: readonly string[], b: readonly string[], common: readonly [number, number][], offset: number): Splice[] {
  const out: Splice[] = []
  let x = 0
  let y = 0
  let at = offset
  for (const [nextX, nextY] of [...common, [a.length, b.length] as const]) {
    const removed = units(a, x, nextX)
    if (nextX > x || nextY > y) out.push({ at, removed, inserted: b.slice(y, nextY).join('') })
    at += removed + (a[nextX]?.length ?? 0)
    x = nextX + 1
    y = nextY + 1
  }
  return out
}

function units(points: readonly string[], from: number, to: number): number {
  let length = 0
  for (let i = from; i < to; i++) length += points[i]!.length
  return length
}
