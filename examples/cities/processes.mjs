// The processes of the demo: the relay, the workers, and a plain TCP proxy that can cut one worker off.
import { spawn } from 'node:child_process'
import { cpSync, mkdirSync } from 'node:fs'
import net from 'node:net'
import path from 'node:path'
import { createInterface } from 'node:readline'

/** Starts the relay; resolves when it listens. */
export async function startRelay(binary, data, port = 0) {
  const child = spawn(binary, ['--listen', `127.0.0.1:${port}`, '--data', data], { stdio: ['ignore', 'pipe', 'inherit'] })
  const exited = new Promise((resolve) => child.once('exit', (code, signal) => resolve({ code, signal })))
  const first = await Promise.race([
    new Promise((resolve) => createInterface({ input: child.stdout }).once('line', resolve)),
    exited.then(({ code, signal }) => { throw new Error(`the relay ended before it listened (${code ?? signal})`) }),
  ])
  return { child, exited, port: Number(/:(\d+)$/.exec(first)[1]) }
}

/** Starts a worker in a directory of its own, where nothing but the package can be resolved. */
export function startWorker(folder, args, onMessage) {
  mkdirSync(folder, { recursive: true })
  for (const file of ['worker.mjs', 'job.mjs']) cpSync(new URL(file, import.meta.url), path.join(folder, file))
  const child = spawn(process.execPath, ['worker.mjs', ...args], { cwd: folder, stdio: ['ignore', 'pipe', 'inherit'] })
  const lines = createInterface({ input: child.stdout }).on('line', (line) => onMessage(JSON.parse(line)))
  // With all it wrote: what is in the pipe outlives its writer.
  const read = new Promise((resolve) => lines.once('close', resolve))
  const exited = new Promise((resolve) => child.once('exit', (code, signal) => read.then(() => resolve({ code, signal }))))
  return { child, exited }
}

/** A proxy in front of the relay; `cut(ms)` breaks its connections and refuses new ones for that long. */
export async function startProxy(port) {
  const sockets = new Set()
  let open = true
  const server = net.createServer((client) => {
    if (!open) return client.destroy()
    const relay = net.connect(port, '127.0.0.1')
    for (const [from, to] of [[client, relay], [relay, client]]) {
      sockets.add(from)
      from.setNoDelay(true)
      from.on('error', () => {})
      from.on('close', () => { sockets.delete(from); to.destroy() })
      from.pipe(to)
    }
  })
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    port: server.address().port,
    async cut(ms) {
      open = false
      for (const socket of sockets) socket.destroy()
      await new Promise((resolve) => setTimeout(resolve, ms))
      open = true
    },
    close() {
      for (const socket of sockets) socket.destroy()
      server.close()
    },
  }
}
