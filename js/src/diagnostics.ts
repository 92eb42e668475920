/**
 * Diagnostics channels: what a heap does, for tools that subscribe (`node:diagnostics_channel`). Elsewhere than in Node.js
 * there are none, and nothing of this is done.
 *
 * | channel | when | message |
 * |---|---|---|
 * | `coheap:load` | a segment came, or came anew | `heap` `ref` `bytes` (encoded) |
 * | `coheap:commit` | a commit was made here | `heap` `label` `refs` `unsaved` (commits that are not durable yet) |
 * | `coheap:apply` | a commit of another became visible | `heap` `label` `refs` `by` |
 * | `coheap:restore` | a relay that lost its log is given back what is here; until `begins` is false, no wait ends | `heap` `begins` |
 * | `coheap:sync` | a `flush`, `sync`, `version` or `reach` ended | `heap` `wait` `ms`, and `error` if it failed |
 *
 * `refs` are the segments, as strings. Nobody listening costs one look per event.
 */

type Name = 'coheap:load' | 'coheap:commit' | 'coheap:apply' | 'coheap:restore' | 'coheap:sync'
interface Channel { readonly hasSubscribers: boolean; publish(message: object): void }

let channelOf: ((name: Name) => Channel) | null | undefined

/** Publishes what `message` makes, if anybody listens. */
export function publish(name: Name, message: () => object): void {
  channelOf ??= findChannels() ?? null
  const channel = channelOf?.(name)
  if (channel?.hasSubscribers === true) channel.publish(message())
}

/** Publishes the end of a wait. */
export async function publishWait<T>(heap: string, wait: string, promise: Promise<T>): Promise<T> {
  const started = performance.now()
  try {
    const value = await promise
    publish('coheap:sync', () => ({ heap, wait, ms: performance.now() - started }))
    return value
  } catch (error) {
    publish('coheap:sync', () => ({ heap, wait, ms: performance.now() - started, error }))
    throw error
  }
}

function findChannels(): ((name: Name) => Channel) | undefined {
  const builtin = (globalThis as { process?: { getBuiltinModule?(name: string): unknown } }).process?.getBuiltinModule
  const module = builtin?.('node:diagnostics_channel') as { channel(name: string): Channel } | undefined
  if (module === undefined) return undefined
  const channels = new Map<Name, Channel>()
  return name => {
    let channel = channels.get(name)
    if (channel === undefined) channels.set(name, (channel = module.channel(name)))
    return channel
  }
}
