// P1: random programs on 2–5 replicas over a relay in memory, through the real engine (`world.ts`). At the end all replicas
// hold the same, and so does one that opens the heap only then. After every commit every mirror held what its engine holds
// (`clean.ts`). For a third of the programs the full module, which has the engine that keeps history, comes only at some step:
// until then commits that need it, and those behind them, are held. For some of these a first attempt to fetch it fails. In all of
// them calls into wasm trap now and then, and the replica goes on in another instance.
//
// COHEAP_SEED=… COHEAP_RUNS=1 replays one run. The statistics are asserted for the standing programs, COHEAP_RUNS not set.
import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { loadFullModule } from '../src/instance.js'
import { removeCopies, withoutModule } from './later.js'
import { Program, Statistics } from './world.js'

const RUNS = Number(process.env['COHEAP_RUNS'] ?? 12)
const SEED = Number(process.env['COHEAP_SEED'] ?? 1)

// A heap moves into the full module when its program says so, not when the disk is done.
await loadFullModule()
after(removeCopies)

/** Runs the program of a seed; gives what it did, in short. */
async function run(seed: number, statistics: Statistics): Promise<string> {
  if (seed % 3 !== 0) return new Program(seed, statistics).run()
  const { Program: There, module } = await withoutModule()
  return new There(seed, statistics, module).run()
}

/** Prints what the programs were made of, and asserts that they were worth running. */
function say({ steps, kinds, commits, concurrent, losses, again, evictions, packed, catchUps, overruled, without, held, failures, traps, trappedCommits, values, roots }: Statistics): void {
  const median = (of: number[]): number => of.sort((a, b) => a - b)[of.length >> 1]!
  const percent = (n: number, of: number): number => Math.round(1000 * n / of) / 10
  console.log(`${values.length} programs: ${steps} steps, ${commits} commits, ${percent(concurrent, commits)} % of them concurrent; ${losses} cuts with losses, ${again} commits sent again, ${evictions} segments evicted, ${packed} packed, ${catchUps} catch-ups with whole segments, ${overruled} containers overruled; ${without} programs without the full module at first, ${held} commits held for it, ${failures} heaps told that it could not be fetched; ${traps} traps in wasm, ${trappedCommits} commits undone by them`)
  console.log(`values at the end: median ${median(values)}, least ${values[0]}, most ${values.at(-1)}; in the root segment: median ${median(roots)}`)
  for (const [kind, n] of kinds) console.log(`  ${kind}: ${n} (${percent(n, steps)} %)`)
  if (process.env['COHEAP_RUNS'] !== undefined) return
  for (const [kind, n] of kinds) assert.ok(n * 100 >= steps, `${kind} is rare: ${n} of ${steps}`)
  assert.ok(concurrent * 100 >= commits * 30, 'programs are too orderly')
  assert.ok(median(values) >= 30, 'documents are too small')
  assert.ok(median(roots) >= 30, 'root segments are too small')
  assert.ok(held >= without * 5, 'few commits wait for the full module')
  assert.ok(failures > 0, 'the full module can always be fetched')
  assert.ok(traps >= 2 * RUNS, 'wasm hardly traps')
  assert.ok(trappedCommits > 0, 'no commit is undone by a trap')
  for (const n of [losses, again, evictions, packed, catchUps]) assert.ok(n >= RUNS, 'the network, or the memory, is too kind')
}

test('P1: replicas that saw the same hold the same, whatever they did', async () => {
  const statistics = new Statistics()
  for (let seed = SEED; seed < SEED + RUNS; seed++) {
    try {
      await run(seed, statistics)
    } catch (error) {
      throw new Error(`seed ${seed}: ${(error as Error).message}`, { cause: error })
    }
  }
  say(statistics)
})

test('one number decides a whole run', async () => {
  const runs: string[] = []
  for (const seed of [SEED, SEED, SEED + 1, SEED + 1, SEED + 2, SEED + 2]) runs.push(await run(seed, new Statistics()))
  for (const i of [0, 2, 4]) assert.equal(runs[i], runs[i + 1], `seed ${SEED + i / 2}`)
  assert.equal(new Set(runs).size, 3)
})
