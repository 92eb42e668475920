// Two processes count in one heap at the same time; exits non-zero if they do not end at the same, right number.
// Needs the relay's binary in COHEAP_RELAY_BIN. The relay gets a free port and a data directory of its own.
import { fork, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'

const STEPS = 300

if (process.argv[2] === 'count') await count(process.argv[3])
else process.exitCode = await demo()

async function count(url) {
  const { counter, open } = await import('coheap')
  const heap = await open(url, { initial: { count: counter() } })
  let changes = 0
  heap.watch(() => heap.root.count.value, () => changes++)
  for (let i = 0; i < STEPS; i++) {
    heap.root.count.add(1)
    await sleep(2)
  }
  process.send({ version: await heap.flush() })
  const [other] = await once(process, 'message')
  await heap.reach(other.version)
  process.send({ added: STEPS, changes, count: heap.root.count.value })
  await heap.close()
  process.disconnect()
}

async function demo() {
  const binary = process.env.COHEAP_RELAY_BIN
  if (!binary) {
    console.error('COHEAP_RELAY_BIN: the path of the relay, for example target/release/coheap-relay (cargo xtask build makes it)')
    return 2
  }
  const data = await mkdtemp(join(tmpdir(), 'coheap-counter-'))
  const relay = spawn(binary, ['--listen', '127.0.0.1:0', '--data', data], { stdio: ['ignore', 'pipe', 'inherit'] })
  try {
    const [line] = await Promise.race([once(createInterface({ input: relay.stdout }), 'line'), once(relay, 'exit').then(([code]) => [`exit ${code}`])])
    const address = /^listening on (ws:\/\/\S+)$/.exec(line)?.[1]
    if (!address) throw new Error(`the relay did not start: ${line}`)
    return await race(`${address}/heap/counter`)
  } finally {
    if (relay.exitCode === null) {
      relay.kill('SIGTERM')
      await once(relay, 'exit')
    }
    await rm(data, { recursive: true, force: true })
  }
}

async function race(url) {
  const started = performance.now()
  const workers = [1, 2].map(() => fork(fileURLToPath(import.meta.url), ['count', url]))
  const answer = worker => Promise.race([once(worker, 'message').then(([message]) => message), once(worker, 'exit').then(([code]) => { throw new Error(`a process ended with ${code}`) })])
  const versions = await Promise.all(workers.map(answer))
  const results = workers.map(answer)
  workers.forEach((worker, i) => worker.send(versions[1 - i]))
  const rows = await Promise.all(results)
  const total = rows.reduce((sum, row) => sum + row.added, 0)
  console.table(rows.map(({ added, changes, count }, i) => ({ process: i + 1, added, 'changes seen': changes, 'final count': count })))
  const right = rows.every(row => row.count === total)
  console.log(`${right ? 'both see' : 'WRONG: not both see'} ${total} after ${Math.round(performance.now() - started)} ms`)
  return right ? 0 : 1
}
