/**
 * The link: one WebSocket at a time, and the decision when to try the next.
 *
 * Owns the socket and the timer of the backoff. It knows nothing of what it carries: messages go up to `receive`, bytes come
 * down to `send`. After a loss it tries again at once, then waits a random time up to a bound that doubles to 5 s (full
 * jitter: a thousand processes that lost one relay do not come back in step). A close code that says "never" ends it.
 *
 * ```text
 * idle ─start─► connecting ─open─► up ─close─► waiting ─timer─► connecting …      fatal close: ended
 * ```
 *
 * In Node.js the socket is `ws`, loaded when the first connection is made; elsewhere the global one; or what the program makes.
 */

import { closeReason, HeapError, type CloseReason } from './errors.js'
import type { WebSocketLike } from './types.js'

const BACKOFF_MS_MIN = 100
const BACKOFF_MS_MAX = 5000
const CLOSING_MS_MAX = 1000

/** What a link tells. */
export interface LinkEvents {
  /** A connection is open: the hello is due. */
  up(): void
  receive(message: Uint8Array): void
  /** The connection is gone and another will be tried. */
  down(reason: CloseReason): void
  /** Trying now. */
  trying(): void
  /** There will be no other. */
  ended(error: HeapError): void
}

export interface LinkOptions {
  readonly url: string
  readonly webSocket: ((url: string, protocols: string[]) => WebSocketLike) | undefined
  /** Runs before each connection: the token is asked for here. */
  readonly prepare: () => Promise<void>
}

export class Link {
  #socket: WebSocketLike | undefined
  #timer: ReturnType<typeof setTimeout> | undefined
  #attempt = 0
  #open = false
  #ended = false
  #referenced = true
  /** Which try this is: what an earlier one still brings is not for this one. */
  #turn = 0

  constructor(readonly options: LinkOptions, readonly events: LinkEvents) {}

  start(): void {
    void this.#connect()
  }

  /** The session stands: the next loss starts the backoff anew. */
  settled(): void {
    this.#attempt = 0
  }

  send(bytes: Uint8Array): void {
    if (this.#open) this.#socket?.send(bytes)
  }

  /** Gives the connection up: what came over it was not to be understood. */
  drop(): void {
    const socket = this.#socket
    if (socket === undefined) return
    this.#lost(socket, 1006, 'the relay sent what is no coheap message')
    try {
      socket.close(1002)
    } catch { /* it is let go */ }
  }

  /** Lets the connection go, without a word to `down`; the next comes with `renew`. */
  pause(): void {
    if (this.#ended) return
    this.#turn += 1
    clearTimeout(this.#timer)
    this.#release(1000)
  }

  /** Connects at once, with a new connection. */
  renew(): void {
    if (this.#ended) return
    this.pause()
    this.#attempt = 0
    void this.#connect()
  }

  #release(code: number): void {
    const socket = this.#socket
    this.#socket = undefined
    this.#open = false
    try {
      socket?.close(code)
    } catch { /* it was not open yet: it is let go */ }
    if (socket !== undefined) letGo(socket)
  }

  get bufferedAmount(): number {
    return this.#socket?.bufferedAmount ?? 0
  }

  /** Ends for good. */
  end(code = 1000): void {
    this.#ended = true
    clearTimeout(this.#timer)
    this.#release(code)
  }

  unref(): void {
    this.#referenced = false
    unrefTimer(this.#timer)
    if (this.#socket !== undefined) unrefSocket(this.#socket)
  }

  async #connect(): Promise<void> {
    if (this.#ended) return
    const turn = ++this.#turn
    this.events.trying()
    let socket: WebSocketLike
    try {
      await this.options.prepare()
      const make = this.options.webSocket ?? (await defaultSocket())
      if (this.#ended || this.#turn !== turn) return
      socket = make(this.options.url, [])
      socket.binaryType = 'arraybuffer'
    } catch (error) {
      if (this.#turn !== turn) return
      if (error instanceof HeapError && !error.retryable) return this.#end(error)
      return this.#lost(undefined, 1006, error instanceof Error ? error.message : String(error))
    }
    this.#socket = socket
    let failure = ''
    socket.addEventListener('open', () => {
      if (this.#socket !== socket) return
      this.#open = true
      if (!this.#referenced) unrefSocket(socket)
      this.events.up()
    })
    socket.addEventListener('message', (event: { data: unknown }) => {
      if (this.#socket === socket && event.data instanceof ArrayBuffer) this.events.receive(new Uint8Array(event.data))
    })
    socket.addEventListener('error', (event: { message?: unknown }) => {
      if (typeof event.message === 'string') failure = event.message
    })
    socket.addEventListener('close', (event: { code?: unknown; reason?: unknown }) => {
      this.#lost(socket, typeof event.code === 'number' ? event.code : 1006, String(event.reason ?? '') || failure)
    })
  }

  #lost(socket: WebSocketLike | undefined, code: number, text: string): void {
    if (this.#ended || this.#socket !== socket) return
    this.#socket = undefined
    this.#open = false
    const reason = closeReason(code, text)
    if (!reason.retryable) return this.#end(new HeapError(reason.code, reason.text, { retryable: false, details: { closeCode: code } }))
    const bound = Math.min(BACKOFF_MS_MAX, BACKOFF_MS_MIN * 2 ** (this.#attempt - 1))
    const delay = this.#attempt === 0 ? 0 : Math.random() * bound
    this.#attempt += 1
    this.#timer = setTimeout(() => void this.#connect(), delay)
    if (!this.#referenced) unrefTimer(this.#timer)
    this.events.down(reason)
  }

  #end(error: HeapError): void {
    this.#ended = true
    this.events.ended(error)
  }
}

/** Lets the process end although this timer runs (Node.js only). */
export function unrefTimer(timer: ReturnType<typeof setTimeout> | undefined): void {
  ;(timer as { unref?: () => void } | undefined)?.unref?.()
}

function unrefSocket(socket: WebSocketLike): void {
  ;(socket as { _socket?: { unref?: () => void } })._socket?.unref?.()
}

/** A closing socket does not keep the process, and a relay that does not answer the close does not either. */
function letGo(socket: WebSocketLike): void {
  unrefSocket(socket)
  const { terminate } = socket as { terminate?: () => void }
  if (terminate !== undefined) unrefTimer(setTimeout(() => terminate.call(socket), CLOSING_MS_MAX))
}

type MakeSocket = (url: string, protocols: string[]) => WebSocketLike

async function defaultSocket(): Promise<MakeSocket> {
  const host = globalThis as { WebSocket?: new (url: string, protocols: string[]) => unknown; process?: { versions?: { node?: string } } }
  if (host.process?.versions?.node !== undefined) {
    const { WebSocket } = await import('ws')
    return (url, protocols) => new WebSocket(url, protocols, { perMessageDeflate: false }) as unknown as WebSocketLike
  }
  const Global = host.WebSocket
  if (Global === undefined) throw new HeapError('ERR_OFFLINE', 'there is no WebSocket here; give open() a `webSocket` option', { retryable: false })
  return (url, protocols) => new Global(url, protocols) as WebSocketLike
}
