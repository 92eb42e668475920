// The servers of a bench, what is in them, and the processes that are measured.
import { spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { Relay } from '../../e2e/relay.mjs'

const peers = process.env.COHEAP_PEERS ?? path.resolve('target/peers')

/** The longest that one process may take: the slowest fills a server with a million entries. */
const PATIENCE_MS = 900_000

export class Desk {
  #relay
  #redis
  #yjs
  #proxies = []
  #data = mkdtempSync(path.join(tmpdir(), 'coheap-bench-'))
  versions = ''

  /** Starts the servers that these rows need, and fills them. */
  async open(rows) {
    const systems = new Set(rows.flatMap((row) => Object.keys(row.systems)))
    this.#relay = await new Relay().start()
    if (systems.has('redis')) {
      const port = await freePort()
      this.#redis = await server(path.join(peers, 'redis-server'), ['--port', port, '--bind', '127.0.0.1', '--save', '', '--dir', this.#data], {}, port)
    }
    if (systems.has('yjs')) {
      const port = await freePort()
      const script = path.join(peers, 'node_modules/@y/websocket-server/src/server.js')
      this.#yjs = await server(process.execPath, ['--max-old-space-size=8192', script], { HOST: '127.0.0.1', PORT: String(port) }, port)
    }
    const of = (name) => `${name} ${JSON.parse(readFileSync(path.join(peers, `node_modules/${name}/package.json`), 'utf8')).version}`
    this.versions = `beside ${['yjs', 'y-websocket', '@y/websocket-server', 'ioredis'].map(of).join(', ')}; redis-server of the machine or of Debian`
    const filled = new Set()
    for (const row of rows) {
      for (const system of Object.keys(row.systems)) {
        for (const [what, count] of Object.entries(row.data)) {
          if (system === 'plain' || row.own?.includes(system) || filled.has(`${system} ${what}`)) continue
          filled.add(`${system} ${what}`)
          const begun = performance.now()
          const said = await this.#run(`fill-${system}`, { ...this.#places(system, what), what, count })
          const most = said.most === undefined ? '' : `, ${Math.round(said.most)} MB of memory at the most`
          console.log(`${what} of ${system}: ${((performance.now() - begun) / 1000).toFixed(1)} s${most}`)
        }
      }
    }
  }

  /** One process; its figures by name. */
  async measure(row, system) {
    const [[what, count]] = Object.entries(row.data)
    const places = this.#places(system, what)
    const proxy = row.counted ? await counting(places.port) : undefined
    if (proxy !== undefined) this.#proxies.push(proxy)
    const args = proxy === undefined ? places : { ...places, port: proxy.port, url: places.url.replace(`:${places.port}/`, `:${proxy.port}/`) }
    const said = await this.#run(row.systems[system], { ...args, count, idle: this.#relay.url('idle') })
    if (proxy !== undefined) said.received = proxy.received() / 1000
    proxy?.close()
    return said
  }

  #places(system, what) {
    const port = { coheap: Number(new URL(this.#relay.url('x')).port), redis: this.#redis?.port, yjs: this.#yjs?.port, plain: 0 }[system]
    return { url: system === 'yjs' ? `ws://127.0.0.1:${port}/` : this.#relay.url(what), port, room: what, peers }
  }

  #run(program, args) {
    const script = path.join(import.meta.dirname, `${program}.mjs`)
    const child = spawn(process.execPath, ['--expose-gc', '--max-old-space-size=8192', script, JSON.stringify(args)], { stdio: ['ignore', 'pipe', 'inherit'], timeout: PATIENCE_MS })
    let said = ''
    child.stdout.on('data', (piece) => (said += piece))
    return new Promise((resolve, reject) => {
      child.once('error', reject)
      child.once('exit', (code, signal) => {
        if (code === 0) resolve(JSON.parse(said))
        else reject(new Error(`${program} ended with ${code ?? signal}`))
      })
    })
  }

  async close() {
    for (const proxy of this.#proxies) proxy.close()
    this.#redis?.child.kill('SIGKILL')
    this.#yjs?.child.kill('SIGKILL')
    await this.#relay?.dispose()
    rmSync(this.#data, { recursive: true, force: true })
  }
}

/** A server process, once it takes connections. */
async function server(program, args, env, port) {
  const child = spawn(program, args.map(String), { stdio: 'ignore', env: { ...process.env, ...env } })
  const ended = new Promise((_, reject) => {
    child.once('error', reject)
    child.once('exit', (code, signal) => reject(new Error(`${program} ended with ${code ?? signal}`)))
  })
  ended.catch(() => {})
  for (let tries = 0; tries < 200; tries++) {
    const there = await Promise.race([ended, reachable(port)])
    if (there) return { child, port }
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
  throw new Error(`${program} does not listen`)
}

function reachable(port) {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1', () => { socket.destroy(); resolve(true) })
    socket.once('error', () => resolve(false))
  })
}

function freePort() {
  return new Promise((resolve) => {
    const listener = createServer().listen(0, '127.0.0.1', () => {
      const { port } = listener.address()
      listener.close(() => resolve(port))
    })
  })
}

/** Hands everything on between its clients and a server, and counts what the server sends. */
async function counting(port) {
  let received = 0
  const open = new Set()
  const listener = createServer((client) => {
    const upstream = connect(port, '127.0.0.1')
    for (const socket of [client, upstream]) {
      open.add(socket)
      socket.on('error', () => {})
      socket.once('close', () => { open.delete(socket); client.destroy(); upstream.destroy() })
    }
    upstream.on('data', (piece) => (received += piece.length))
    client.pipe(upstream).pipe(client)
  })
  await new Promise((resolve) => listener.listen(0, '127.0.0.1', resolve))
  const close = () => { for (const socket of open) socket.destroy(); listener.close() }
  return { port: listener.address().port, received: () => received, close }
}
