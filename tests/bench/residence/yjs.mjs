// A document of y-websocket's server, whole: there is no other way to have some of it.
import { args, peer } from './child.mjs'

const Y = peer('yjs')
const { WebsocketProvider } = peer('y-websocket')
const WebSocket = peer('ws')

export { Y }

export async function openDocument() {
  const document = new Y.Doc()
  const provider = new WebsocketProvider(args.url.replace(/\/$/, ''), args.room, document, { WebSocketPolyfill: WebSocket, disableBc: true })
  await new Promise((resolve) => provider.once('sync', resolve))
  return { document, provider }
}
