// The six programs of the public face, as a user would write them, and uses that must not compile. Compiled, never run.
import { test } from 'node:test'
import { open, counter, set, text, move, snapshot, type Heap, type Ref, type Counter, type Text } from '../src/index.js'

export async function programs(): Promise<void> {
  // 1 sessions + rate limits, 8 processes
  interface Session { user: string; cart: string[] }
  interface Web { hits: Counter }
  const web = await open<Web>('ws://h/heap/web', { initial: { hits: counter() }, budget: '64mb' })
  const sessions = web.map<Session>('sessions'), limits = web.map<number>('limits')
  async function handle(sid: string, ip: string) {
    web.root.hits.add()
    if (await limits.add(`${ip}:m`, 1) > 100) return 429
    const s = await sessions.get(sid); if (!s) await sessions.set(sid, { user: 'x', cart: [] })
    await sessions.update(sid, d => { d?.cart.push('apple') })
    const v = await web.flush({ timeoutMs: 500 }); return v
  }
  // 2 job board
  interface Job { title: string; done: boolean; result?: string }
  interface Board { jobs: Ref<Job>[]; open: Counter }
  const board = await open<Board>('ws://h/heap/board', { initial: { jobs: [], open: counter() } })
  board.transact(() => { board.root.jobs.push(board.alloc<Job>({ title: 'ship', done: false })); board.root.open.add(1) })
  for (const ref of board.root.jobs) {
    const claim = await board.claim(ref); if (!claim) continue
    const job = await ref.load()
    board.transact(() => { job.done = true; board.root.open.add(-1) }); await board.flush(); claim.release()
  }
  board.watch(() => board.root.jobs.filter(r => r.peek()?.done === false).length, n => { const k: number = n })
  // 3 agents share a plan
  interface Plan { goal: string; steps: { id: string; what: string; state: 'todo'|'doing'|'done' }[]; notes: Text }
  const plan = await open<Plan>('ws://h/heap/plan', { initial: { goal: '', steps: [], notes: text() }, name: 'agent-7' })
  plan.root.notes.update('new text by the model'); move(plan.root.steps, 3, 0)
  plan.watch(plan.root, c => { console.log(c.by.name, c.label, c.patches) }, { deep: true })
  const prompt = JSON.stringify(snapshot(plan.root))
  const p = plan.presence<{ doing: string }>(); p.set({ doing: 'step 3' })
  // 4 config broadcast
  interface Conf { config?: { flags: Record<string, boolean>; hosts: string[] } }
  const conf = await open<Conf>('wss://h/heap/conf', { token: () => 'jwt', create: false })
  conf.watch(() => conf.root.config?.flags, f => { const on = f?.['beta'] === true }, { initial: true })
  conf.root.config = { flags: {}, hosts: ['a'] }; conf.root.config.hosts = ['b', 'c']
  // 5 leaderboard
  const game = await open<{ top: { name: string; score: number }[] }>('ws://h/heap/game', { initial: { top: [] } })
  const scores = game.map<number>('scores'); const mine: number = await scores.add('ann', 5)
  const dispose = await scores.watch(c => { if ((c.value ?? 0) > 100) game.root.top.push({ name: c.key, score: c.value! }) })
  // 6 catalogue
  interface Item { name: string; price: number }
  const cat = await open<{ total: Counter }>('ws://h/heap/cat', { budget: '32mb' })
  const items = cat.map<Item>('items', { partitions: 1024 }), out = cat.map<{ sum: number }>('out')
  async function* rows(): AsyncGenerator<[string, Item]> { yield ['1', { name: 'a', price: 1 }] }
  await items.setMany(rows())
  for await (const part of items.share({ group: 'reprice', run: '2026-11-22' })) {
    let sum = 0; for (const [, it] of part.entries()) sum += it.price
    const o = await out.partitionOf(`p${part.index}`).load()
    cat.transact(() => { o.set(`p${part.index}`, { sum }); part.done() })
  }
  // wrong uses that must not compile
  // @ts-expect-error async transact
  board.transact(async () => { board.root.open.add(1) })
  // @ts-expect-error snapshots are read-only
  snapshot(plan.root).goal = 'x'
  void [handle, p, prompt, mine, dispose]
}

export function wrong(heap: Heap<{ n: number; c: Counter; list: { x: number }[]; ref: Ref<{ x: number }> }>): void {
  // @ts-expect-error a counter is not a number
  heap.root.c++
  // @ts-expect-error no such key
  heap.root.nothing = 1
  // @ts-expect-error a Ref is not its object
  heap.root.ref.x = 1
  // @ts-expect-error the root cannot be replaced
  heap.root = {}
  // @ts-expect-error sets hold plain values
  set([{}])
  // @ts-expect-error names of later versions are not here yet
  heap.delete(heap.root.ref)
  // @ts-expect-error an async function in run
  void heap.run(async () => { heap.root.n = 1 })
  const frozen = snapshot(heap.root)
  // @ts-expect-error snapshots are read-only, all the way down
  frozen.list[0]!.x = 1
  const count: number = frozen.c
  void count
}

test('the programs of the public face compile', () => {})
