/**
 * The one error class, its codes, and the table from the numbers of the wire to them.
 *
 * Codes are stable strings that programs may compare; messages are for people and may change. `retryable` says that the
 * same call may succeed later without anything being changed. A program's own error thrown inside `transact` is never
 * wrapped. Next: `core/WIRE.md` §7, which is where the close codes come from.
 */

/** Every code a {@link HeapError} can carry. */
export type ErrorCode =
  | 'ERR_AUTH' | 'ERR_FORBIDDEN' | 'ERR_OFFLINE' | 'ERR_TIMEOUT' | 'ERR_SCHEMA' | 'ERR_TOO_LARGE' | 'ERR_CLOSED' | 'ERR_CORRUPT'
  | 'ERR_PROTOCOL' | 'ERR_NOT_FOUND' | 'ERR_NOT_LOADED' | 'ERR_DELETED' | 'ERR_QUARANTINED' | 'ERR_REFUSED' | 'ERR_CONFLICT'
  | 'ERR_VERSION_LOST' | 'ERR_ENGINE' | 'ERR_UNSAVED' | 'ERR_UNSAVED_LIMIT' | 'ERR_OVER_BUDGET' | 'ERR_STORE_LOCKED'
  | 'ERR_STORAGE_FULL' | 'ERR_RATE_LIMITED' | 'ERR_LISTENER'

const RETRYABLE: ReadonlySet<string> = new Set<ErrorCode>([
  'ERR_OFFLINE', 'ERR_TIMEOUT', 'ERR_NOT_LOADED', 'ERR_UNSAVED_LIMIT', 'ERR_OVER_BUDGET', 'ERR_STORAGE_FULL', 'ERR_RATE_LIMITED',
])

/** What coheap throws, rejects with and reports by `error` events. */
export class HeapError extends Error {
  /** A stable code, such as `ERR_TIMEOUT`. */
  readonly code: string
  /** Whether the same call may succeed later as it is. */
  readonly retryable: boolean
  /** What is needed to act on it; depends on the code. */
  readonly details: Readonly<Record<string, unknown>>

  constructor(code: string, message: string, options: { retryable?: boolean; details?: Record<string, unknown>; cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    this.code = code
    this.retryable = options.retryable ?? RETRYABLE.has(code)
    this.details = Object.freeze({ ...options.details })
  }

  override get name(): string {
    return 'HeapError'
  }
}

/** What a close code of the relay means; `undefined` for a close that says nothing but "gone". */
export interface CloseReason { readonly code: ErrorCode; readonly retryable: boolean; readonly text: string }

const CLOSES: Readonly<Record<number, CloseReason>> = {
  4001: { code: 'ERR_PROTOCOL', retryable: false, text: 'the relay took a message for not being a coheap message' },
  4002: { code: 'ERR_PROTOCOL', retryable: false, text: 'the relay could not parse a frame' },
  4003: { code: 'ERR_PROTOCOL', retryable: false, text: 'the relay does not speak this version of the protocol' },
  4004: { code: 'ERR_TOO_LARGE', retryable: false, text: 'a message was too large for the relay' },
  4005: { code: 'ERR_AUTH', retryable: false, text: 'the token is missing or not accepted' },
  4006: { code: 'ERR_FORBIDDEN', retryable: false, text: 'not allowed' },
  4007: { code: 'ERR_NOT_FOUND', retryable: false, text: 'no such heap' },
  4008: { code: 'ERR_TIMEOUT', retryable: true, text: 'no hello came in time' },
  4009: { code: 'ERR_CONFLICT', retryable: true, text: 'another connection of this replica took over' },
  4010: { code: 'ERR_PROTOCOL', retryable: false, text: 'not supported by this relay' },
  4011: { code: 'ERR_OFFLINE', retryable: true, text: "the relay's store failed" },
  4012: { code: 'ERR_PROTOCOL', retryable: false, text: 'that heap name is not allowed' },
  4013: { code: 'ERR_OFFLINE', retryable: true, text: 'this connection reads too slowly' },
  4014: { code: 'ERR_VERSION_LOST', retryable: false, text: 'the relay lost part of the log that this replica has' },
  4015: { code: 'ERR_CORRUPT', retryable: false, text: "the heap is damaged in the relay's store" },
}

/** The meaning of a WebSocket close code (`core/WIRE.md` §7). Anything not in the table is a lost connection, tried again. */
export function closeReason(code: number, reason: string): CloseReason {
  const known = CLOSES[code]
  if (known === undefined) return { code: 'ERR_OFFLINE', retryable: true, text: reason || 'the connection was lost' }
  return reason === '' ? known : { ...known, text: reason }
}
