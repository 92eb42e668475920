/**
 * Listeners: called one after the other, in the order they came; one that throws does not stop the next.
 *
 * What a listener throws becomes an `error` event; what nobody listens to is handed to the platform's own place for it
 * (`reportError`, in Node.js a process warning), never to the console and never back into the heap.
 */

import { HeapError } from './errors.js'

type Listener = (event: never) => void

export class Events<Map extends object> {
  readonly #listeners = new Map<keyof Map, Set<Listener>>()

  add<K extends keyof Map>(type: K, fn: (event: Map[K]) => void, options: { signal?: AbortSignal; once?: boolean } = {}): void {
    if (options.signal?.aborted === true) return
    let listeners = this.#listeners.get(type)
    if (listeners === undefined) this.#listeners.set(type, (listeners = new Set()))
    const listener = options.once === true ? (event: Map[K]) => { this.#forget(type, fn as Listener); fn(event) } : fn
    this.#forget(type, fn as Listener)
    ;(listener as { of?: unknown }).of ??= fn
    listeners.add(listener as Listener)
    options.signal?.addEventListener('abort', () => this.#forget(type, fn as Listener), { once: true })
  }

  remove<K extends keyof Map>(type: K, fn: (event: Map[K]) => void): void {
    this.#forget(type, fn as Listener)
  }

  has(type: keyof Map): boolean {
    return (this.#listeners.get(type)?.size ?? 0) > 0
  }

  /** Calls the listeners of `type`; gives what they threw. */
  emit<K extends keyof Map>(type: K, event: Map[K]): unknown[] {
    const thrown: unknown[] = []
    for (const listener of [...(this.#listeners.get(type) ?? [])]) {
      try {
        ;(listener as (event: Map[K]) => void)(event)
      } catch (error) {
        thrown.push(error)
      }
    }
    return thrown
  }

  #forget(type: keyof Map, fn: Listener): void {
    const listeners = this.#listeners.get(type)
    for (const listener of listeners ?? []) if (listener === fn || (listener as { of?: unknown }).of === fn) listeners!.delete(listener)
  }
}

/** What a listener's error looks like as an event: the program's own error is the `cause`. */
export function listenerError(cause: unknown): HeapError {
  return new HeapError('ERR_LISTENER', `a listener of this program threw (its own error is the cause): ${cause instanceof Error ? cause.message : String(cause)}`, { cause })
}

/** For errors that nobody listens to. */
export function reportUnheard(error: Error): void {
  const host = globalThis as { reportError?: (error: unknown) => void; process?: { emitWarning?: (warning: Error) => void } }
  if (typeof host.reportError === 'function') host.reportError(error)
  else host.process?.emitWarning?.(error)
}
