/**
 * `open()`: reads the URL and the options, makes a replica and waits for the root.
 */

import { HeapError } from './errors.js'
import { HeapObject } from './heap.js'
import { budgetOf } from './residence.js'
import type { Heap, OpenOptions } from './types.js'

const OPEN_MS = 30_000

/**
 * Opens a heap by its URL (`ws://HOST:PORT/heap/NAME`) and resolves when its root can be read. A name that nothing was ever
 * written under opens as an empty root, and leaves nothing behind if nothing is written.
 */
export async function open<Root extends object>(url: string | URL, options: OpenOptions<Root> = {}): Promise<Heap<Root>> {
  const { href, encodedName, heapName } = parseUrl(url)
  const budget = budgetOf(options.budget)
  const maxUnsaved = options.maxUnsaved ?? budget.bytes / 4
  if (!(Number.isFinite(maxUnsaved) && maxUnsaved > 0)) throw new RangeError('maxUnsaved is a positive number of bytes')
  const name = options.name ?? ''
  if (new TextEncoder().encode(name).length > 256) throw new HeapError('ERR_TOO_LARGE', 'a replica\'s name may have 256 bytes')
  if (options.signal?.aborted === true) throw options.signal.reason
  const { token } = options
  const heap = new HeapObject<Root>({
    url: href, encodedName, heapName, name, budget, maxUnsaved,
    mustExist: options.create === false,
    token: token === undefined ? undefined : typeof token === 'string' ? () => token : reason => token({ reason }),
    webSocket: options.webSocket,
  })
  await heap.start(options.initial, { timeoutMs: options.timeoutMs ?? OPEN_MS, ...(options.signal === undefined ? {} : { signal: options.signal }) })
  return heap
}

/** The parts of a heap's URL; TypeError if it is none. */
export function parseUrl(url: string | URL): { href: string; encodedName: string; heapName: string } {
  let parsed: URL
  try {
    parsed = new URL(url)
  } catch {
    throw new TypeError(`not a URL: ${JSON.stringify(String(url))}; a heap's looks like ws://127.0.0.1:7420/heap/NAME`)
  }
  if (parsed.protocol !== 'ws:' && parsed.protocol !== 'wss:') throw new TypeError(`a heap's URL begins with ws: or wss:, not ${parsed.protocol}`)
  const encodedName = /\/heap\/([^/]+)$/.exec(parsed.pathname)?.[1]
  if (encodedName === undefined) throw new TypeError(`no heap in ${parsed.pathname}: a heap's URL ends in /heap/NAME`)
  let heapName: string
  try {
    heapName = decodeURIComponent(encodedName)
  } catch {
    throw new TypeError(`the heap's name ${JSON.stringify(encodedName)} is not percent-encoded UTF-8`)
  }
  if (heapName.length > 128) throw new TypeError('a heap\'s name has 1 to 128 characters')
  parsed.hash = ''
  return { href: parsed.href, encodedName, heapName }
}
