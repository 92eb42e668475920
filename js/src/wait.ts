/**
 * Waiting with an end: a signal, a time limit, or both. No timer outlives what it was for.
 */

import { HeapError } from './errors.js'
import type { Wait } from './types.js'

/**
 * Runs `start` with the two ends of a promise; `cancel`, which `start` returns, is called if the wait ends first.
 * Rejects with the signal's reason, or with `ERR_TIMEOUT` naming `what`.
 */
export function waiting<T>(
  what: string,
  wait: Wait | undefined,
  start: (resolve: (value: T) => void, reject: (error: unknown) => void) => (() => void) | void,
): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    const signal = wait?.signal
    if (signal?.aborted === true) return reject(signal.reason as Error)
    let timer: ReturnType<typeof setTimeout> | undefined
    let ended = false
    const end = (): boolean => {
      if (ended) return false
      ended = true
      clearTimeout(timer)
      signal?.removeEventListener('abort', onAbort)
      return true
    }
    const stop = (error: unknown): void => {
      if (!end()) return
      cancel?.()
      reject(error as Error)
    }
    const onAbort = (): void => stop(signal?.reason)
    signal?.addEventListener('abort', onAbort)
    const timeoutMs = wait?.timeoutMs
    if (timeoutMs !== undefined && Number.isFinite(timeoutMs)) {
      timer = setTimeout(() => stop(new HeapError('ERR_TIMEOUT', `${what} took longer than ${timeoutMs} ms`, { details: { timeoutMs } })), Math.max(0, timeoutMs))
    }
    let cancel: (() => void) | void = undefined
    try {
      cancel = start(value => { if (end()) resolve(value) }, error => { if (end()) reject(error as Error) })
    } catch (error) {
      if (end()) reject(error as Error)
    }
  })
}
