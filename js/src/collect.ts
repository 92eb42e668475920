/**
 * The garbage collector, asked for by name.
 *
 * What a program still holds is known through weak references, and those are cleared by a full collection only, which V8 puts
 * off while its own heap is small. A budget of a few megabytes would fill with objects that nobody holds any more long before.
 * So a heap that stays over its budget because of what looks held has Node collect, seldom enough to cost little. Where there
 * is no way to ask (browsers), the heap waits for the collector instead.
 */

/** A collection may take at most about one part in this of the time. */
const SHARE = 10

let collector: (() => void) | null | undefined
let next = 0

/** Whether there is a way to ask. */
export function canCollect(): boolean {
  collector ??= findCollector() ?? null
  return collector !== null
}

/** Collects if that is possible and not too soon after the last time. Weak references that this job has read stay. */
export function collectGarbage(now: () => number): boolean {
  const started = now()
  if (!canCollect() || started < next) return false
  collector!()
  const ended = now()
  next = ended + (ended - started) * (SHARE - 1)
  return true
}

function findCollector(): (() => void) | undefined {
  const builtin = (globalThis as { process?: { getBuiltinModule?(name: string): unknown } }).process?.getBuiltinModule
  if (builtin === undefined) return undefined
  try {
    const v8 = builtin('node:v8') as { setFlagsFromString(flag: string): void }
    const vm = builtin('node:vm') as { runInNewContext(code: string): unknown }
    v8.setFlagsFromString('--expose-gc')
    const found = vm.runInNewContext('gc')
    v8.setFlagsFromString('--no-expose-gc')
    return typeof found === 'function' ? found as () => void : undefined
  } catch {
    return undefined
  }
}
