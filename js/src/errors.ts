/** The one error the package throws: `code` is stable and says what happened; the message is for people. */
export class HeapError extends Error {
  readonly code: string
  /** True when the same call may succeed later without a change by the caller. */
  readonly retryable: boolean
  readonly details: Readonly<Record<string, unknown>>

  /** @internal */
  constructor(
    code: string,
    message: string,
    about: { retryable?: boolean; details?: Readonly<Record<string, unknown>>; cause?: unknown } = {},
  ) {
    super(message, 'cause' in about ? { cause: about.cause } : undefined)
    this.name = 'HeapError'
    this.code = code
    this.retryable = about.retryable ?? false
    this.details = about.details ?? {}
  }
}
