/**
 * The link: one WebSocket at a time, and the decision when to try the next.
 *
 * Owns the socket, the timer of the backoff and the one that watches for silence. Of what it carries it knows only Ping and
 * Pong (`core/WIRE.md`): messages go up to `receive`, bytes come down to `send`. After a loss it tries again at once, then
 * waits a random time up to a bound that doubles to 5 s (full jitter: a thousand processes that lost one relay do not come
 * back in step). A close code that says "never" ends it.
 *
 * ```text
 * idle ─start─► connecting ─open─► up ─settled─► settled ─close─► waiting ─timer─► connecting …      fatal close: ended
 *                   └────10 s of silence────┘       └── silent after a Ping ──► (as a close)
 * ```
 *
 * A relay that accepts a connection and says nothing is as good as none. Until the session stands, silence of `answerMs` ends
 * the attempt. From then on a Ping goes out every `pingMs`, whatever else is said: it shows a relay that a reader which never
 * writes is there, and its Pong is the round trip. If nothing at all moves on the socket for `answerMs` after a Ping, the
 * connection is lost.
 *
 * In Node.js the socket is `ws`, loaded when the first connection is made; elsewhere the global one; or what the program makes.
 */

import { Reader } from './edge.js'
import { closeReason, HeapError, type CloseReason } from './errors.js'
import type { WebSocketLike } from './types.js'

const BACKOFF_MS_MIN = 100
const BACKOFF_MS_MAX = 5000
const CLOSING_MS_MAX = 1000
/** Waited once more before a silence is believed: a process that was busy reads first what has long arrived. */
const LOOK_AGAIN_MS = 50
const CHANNEL = 0
const PING = 0x0e
const PONG = 0x56

/** How long a link waits. */
export interface LinkTimes {
  /** From one Ping to the next. */
  readonly pingMs: number
  /** How long nothing may come while something is due. */
  readonly answerMs: number
}

const TIMES: LinkTimes = { pingMs: 15_000, answerMs: 10_000 }

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
  readonly times?: LinkTimes
}

export class Link {
  readonly #times: LinkTimes
  #socket: WebSocketLike | undefined
  #timer: ReturnType<typeof setTimeout> | undefined
  #watch: ReturnType<typeof setTimeout> | undefined
  #attempt = 0
  #open = false
  #settled = false
  #ended = false
  #referenced = true
  /** Which try this is: what an earlier one still brings is not for this one. */
  #turn = 0
  /** When something last came, or was seen to leave. */
  #heardAt = 0
  /** How much would wait to be sent, had the network taken nothing since. */
  #buffered = 0
  /** When the hello or the Ping went out whose answer is still due. */
  #askedAt = 0
  #nonce = 0
  #pinged = false
  /** From the hello to the session's begin, or from the last Ping to its Pong; `undefined` before there was one. */
  rttMs: number | undefined = undefined

  constructor(readonly options: LinkOptions, readonly events: LinkEvents) {
    this.#times = options.times ?? TIMES
  }

  start(): void {
    void this.#connect()
  }

  /** The session stands: the next loss starts the backoff anew. */
  settled(): void {
    this.#attempt = 0
    if (this.#settled || this.#socket === undefined) return
    this.#settled = true
    this.rttMs = performance.now() - this.#askedAt
    this.#watchIn(this.#times.pingMs, this.#socket)
  }

  send(bytes: Uint8Array): void {
    if (!this.#open) return
    this.#buffered += bytes.length
    this.#socket?.send(bytes)
  }

  /** Gives the connection up: what came over it was not to be understood. */
  drop(): void {
    if (this.#socket !== undefined) this.#giveUp(this.#socket, 'the relay sent what is no coheap message')
  }

  #giveUp(socket: WebSocketLike, text: string): void {
    this.#lost(socket, 1006, text)
    try {
      socket.close(1000)
    } catch { /* it is let go */ }
    letGo(socket)
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
    clearTimeout(this.#watch)
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
    unrefTimer(this.#watch)
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
    this.#settled = false
    this.#pinged = false
    this.#heard(socket)
    this.#watchIn(this.#times.answerMs, socket)
    if (!this.#referenced) unrefSocket(socket)
    let failure = ''
    socket.addEventListener('open', () => {
      if (this.#socket !== socket) return
      this.#open = true
      this.#heard(socket)
      this.#askedAt = this.#heardAt
      if (!this.#referenced) unrefSocket(socket)
      this.events.up()
    })
    socket.addEventListener('message', (event: { data: unknown }) => {
      if (this.#socket !== socket || !(event.data instanceof ArrayBuffer)) return
      const message = new Uint8Array(event.data)
      this.#heard(socket)
      if (this.#pinged && hasPong(message, this.#nonce)) {
        this.#pinged = false
        this.rttMs = this.#heardAt - this.#askedAt
      }
      this.events.receive(message)
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
    clearTimeout(this.#watch)
    const reason = closeReason(code, text)
    if (!reason.retryable) return this.#end(new HeapError(reason.code, reason.text, { retryable: false, details: { closeCode: code } }))
    // Two that displace each other are not to do it in step.
    const attempt = reason.replaced === true ? Math.max(this.#attempt, 2) : this.#attempt
    const bound = Math.min(BACKOFF_MS_MAX, BACKOFF_MS_MIN * 2 ** (attempt - 1))
    const delay = attempt === 0 ? 0 : Math.random() * bound
    this.#attempt += 1
    this.#timer = setTimeout(() => void this.#connect(), delay)
    if (!this.#referenced) unrefTimer(this.#timer)
    this.events.down(reason)
  }

  #heard(socket: WebSocketLike): void {
    this.#heardAt = performance.now()
    this.#buffered = socket.bufferedAmount
  }

  #watchIn(ms: number, socket: WebSocketLike): void {
    clearTimeout(this.#watch)
    this.#watch = setTimeout(() => this.#check(socket), ms)
    if (!this.#referenced) unrefTimer(this.#watch)
  }

  /** Looks whether the other end lives; asks it when it is time to. */
  #check(socket: WebSocketLike, again = false): void {
    if (this.#socket !== socket) return
    const { pingMs, answerMs } = this.#times
    // A backlog that shrinks is a sign of life as well: the answer may be waiting behind it.
    const { bufferedAmount } = socket
    if (bufferedAmount > 0 && bufferedAmount < this.#buffered) this.#heard(socket)
    this.#buffered = bufferedAmount
    const now = performance.now()
    if (this.#settled && !this.#pinged) {
      const due = this.#askedAt + pingMs - now
      if (due > 0) return this.#watchIn(due, socket)
      this.#ping()
      return this.#watchIn(answerMs, socket)
    }
    const left = Math.max(this.#heardAt, this.#askedAt) + answerMs - now
    if (left > 0) return this.#watchIn(left, socket)
    if (again) return this.#giveUp(socket, `nothing came from the relay for ${answerMs} ms`)
    this.#watch = setTimeout(() => this.#check(socket, true), LOOK_AGAIN_MS)
    if (!this.#referenced) unrefTimer(this.#watch)
  }

  #ping(): void {
    this.#nonce = (this.#nonce + 1) & 0x7f
    this.#pinged = true
    this.#askedAt = performance.now()
    this.send(Uint8Array.of(CHANNEL, PING, 1, this.#nonce))
  }

  #end(error: HeapError): void {
    this.#ended = true
    clearTimeout(this.#watch)
    this.events.ended(error)
  }
}

/** Whether a frame of the message is the Pong with this nonce. A message that is none is judged where all are read. */
function hasPong(message: Uint8Array, nonce: number): boolean {
  const r = new Reader(message)
  try {
    r.varint()
    while (r.left > 0) {
      const kind = r.u8()
      const body = r.bytes()
      if (kind === PONG && body.length === 1 && body[0] === nonce) return true
    }
  } catch { /* said by who reads it */ }
  return false
}

/** Lets the process end although this timer runs (Node.js only). */
export function unrefTimer(timer: ReturnType<typeof setTimeout> | undefined): void {
  ;(timer as { unref?: () => void } | undefined)?.unref?.()
}

/** Lets the process end although this socket is open, or is being opened (`ws` only). */
function unrefSocket(socket: WebSocketLike): void {
  const { _socket, _req } = socket as { _socket?: Unref | null; _req?: { socket?: Unref | null; once?: (type: 'socket', fn: (socket: Unref) => void) => void } | null }
  if (_socket) _socket.unref?.()
  else if (_req?.socket) _req.socket.unref?.()
  else _req?.once?.('socket', opening => opening.unref?.())
}

interface Unref { unref?: () => void }

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
