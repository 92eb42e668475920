// `cargo xtask bench residence`: a data set that is larger than a process, of which each process holds what it touches.
//
// Every figure is of a fresh process that runs one program of `residence/` against the release relay with its defaults, through
// the package as published; rows and systems take turns, and a row is the median of its runs. A peer that is not there is an error.
// A target that is missed is printed as missed, and the bench ends well: it measures, it does not judge.
//
//   --only ROW     that row alone
//   --runs N       so many runs (default 5)
import { execFileSync } from 'node:child_process'
import os from 'node:os'
import { parseArgs } from 'node:util'
import { Desk } from './residence/desk.mjs'
import { rows } from './residence/rows.mjs'

const { values: flags } = parseArgs({ options: { only: { type: 'string' }, runs: { type: 'string', default: '5' } } })
const runs = Number(flags.runs)
const chosen = rows.filter((row) => flags.only === undefined || row.name === flags.only)
if (chosen.length === 0) throw new Error(`no such row: ${flags.only}; there are ${rows.map((row) => row.name).join(', ')}`)

const commit = execFileSync('git', ['describe', '--always', '--dirty'], { encoding: 'utf8' }).trim()
console.log(`${os.cpus().length} × ${os.cpus()[0].model}, ${Math.round(os.totalmem() / 2 ** 30)} GiB, ${os.release()}, Node.js ${process.version}, coheap ${commit}`)
console.log(`cargo xtask bench residence${flags.only === undefined ? '' : ` --only ${flags.only}`} --runs ${runs}`)

const desk = new Desk()
try {
  await desk.open(chosen)
  console.log(desk.versions)
  const found = new Map()
  for (let run = 0; run < runs; run++) {
    for (const row of chosen) {
      for (const system of Object.keys(row.systems)) {
        const figures = await desk.measure(row, system)
        for (const [figure, value] of Object.entries(figures)) {
          const key = `${row.name} ${system} ${figure}`
          found.set(key, [...(found.get(key) ?? []), value])
        }
      }
    }
    process.stderr.write(`run ${run + 1} of ${runs}\n`)
  }
  for (const row of chosen) report(row, found)
} finally {
  await desk.close()
}

/** A row's figures: each system's median, least and most, and what was aimed at. */
function report(row, found) {
  console.log(`\n${row.title}`)
  for (const { figure, unit, target } of row.figures) {
    for (const system of Object.keys(row.systems)) {
      const all = found.get(`${row.name} ${system} ${figure}`)?.toSorted((a, b) => a - b)
      if (all === undefined) continue
      const median = middle(all)
      const aim = system !== 'coheap' || target === undefined ? '' : median <= target ? `  ≤ ${target}` : `  MISSED: ≤ ${target}`
      const spread = `(${shown(all[0])} – ${shown(all.at(-1))}, n = ${all.length})`
      console.log(`  ${`${figure}, ${unit}`.padEnd(52)} ${system.padEnd(10)} ${shown(median).padStart(10)} ${spread.padEnd(34)}${aim}`)
    }
  }
}

function middle(sorted) {
  const half = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2
}

function shown(number) {
  return number >= 100 ? String(Math.round(number)) : number.toPrecision(3)
}
