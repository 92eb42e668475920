// The faults, and what is known of them. Every worker writes a line whenever a commit of its own is made or acknowledged and
// whenever its connection changes; all its lines are kept (its diary), with its clock, which is the machine's and so the same
// in all processes. Every figure here is read from the diaries afterwards; none is a guess of the moment.
import { seconds } from './report.mjs'

/** The machine's monotonic clock in milliseconds. */
export const now = () => Number(process.hrtime.bigint() / 1000n) / 1000

/** How many of its commits a worker knew to be acknowledged when it wrote this line; one that was refused is not among them. */
const acknowledged = (line) => answered(line) - line.refused
const answered = (line) => line.commits - line.unsaved
const lastUntil = (diary, moment) => diary.findLast((line) => line.at <= moment)
const firstAfter = (diary, moment, is) => diary.find((line) => line.at > moment && is(line))
const lossAfter = (diary, moment) => firstAfter(diary, moment, (line) => line.connection !== 'online')

/** Commits that were made by `moment`, when the connection broke, and had no acknowledgement when that was noticed. */
function unacknowledgedAt(diary, moment) {
  const [before, loss] = [lastUntil(diary, moment), lossAfter(diary, moment)]
  return before && loss ? Math.max(0, before.commits - answered(loss)) : 0
}

/** Between 20 % and 60 % of the work: kills a worker, cuts one off for 2 s, kills the relay, each while commits are in flight. */
export class Faults {
  /** Each has `at`, `share` (of the work that was done), and `counts` once commits are known to have been in flight. */
  kill = undefined
  cut = undefined
  relay = undefined
  #busy = false

  /** `world`: `share()`, `results()`, `workers()`, `sync()`, `cutOff(ms)`, `restartRelay()`. */
  constructor(world) {
    this.world = world
  }

  get allCount() {
    return [this.kill, this.cut, this.relay].every((fault) => fault?.counts)
  }

  /**
   * A worker wrote a line: the next fault comes when one has just made a commit, or, for the kill, just taken a partition (it
   * reckons then, and hears of no acknowledgement). A fault that met no commit in flight is repeated.
   */
  wrote(worker, line, before) {
    const share = this.world.share()
    if (this.#busy || share < 0.2 || share > 0.6 || line.connection !== 'online' || line.unsaved === 0) return
    const made = line.commits > (before?.commits ?? 0)
    const took = line.hand !== null && line.hand !== before?.hand
    let fault
    if (!this.kill?.counts) {
      if (worker.number === 0 && took && !worker.killed) fault = this.#kill(worker, share)
    } else if (!this.cut?.counts) {
      if (worker.number === 1 && made) fault = this.#cut(worker, share)
    } else if (!this.relay?.counts && made) fault = this.#relay(share)
    if (fault === undefined) return
    this.#busy = true
    fault.finally(() => { this.#busy = false })
  }

  async #kill(worker, share) {
    const fault = (this.kill = { at: now(), share, worker })
    worker.child.kill('SIGKILL')
    worker.killed = true
    await worker.exited
    await this.world.sync()
    // What it wrote is in the pipe to the last line, so that is how things stood when it died.
    const last = worker.diary.at(-1)
    const results = this.world.results()
    const taken = new Set(worker.diary.map(({ hand }) => hand).filter((index) => index !== null))
    Object.assign(fault, { last, taken, results, unacknowledged: last.unsaved })
    fault.counts = last.unsaved > 0 && last.hand !== null && results.get(last.hand)?.by !== worker.name
    this.#say(`worker-0 was killed with ${last.unsaved} unacknowledged commits`, fault)
  }

  async #cut(worker, share) {
    const fault = (this.cut = { at: now(), share, worker })
    await this.world.cutOff(2000)
    const { diary } = worker
    await until(() => worker.ended || this.#caughtUp(fault) !== undefined)
    const [loss, back] = [lossAfter(diary, fault.at), this.#back(fault)]
    if (!loss || !back) return
    Object.assign(fault, { unacknowledged: unacknowledgedAt(diary, fault.at), offlineMs: back.at - fault.at, waiting: back.unsaved, meanwhile: back.commits - loss.commits })
    const caughtUp = this.#caughtUp(fault)
    if (caughtUp) Object.assign(fault, { recoveryMs: caughtUp.at - back.at, refused: caughtUp.refused - back.refused })
    fault.counts = fault.unacknowledged > 0
    this.#say(`worker-1 was cut off for 2 s with ${fault.unacknowledged} unacknowledged commits`, fault)
  }

  #back(fault) {
    const loss = lossAfter(fault.worker.diary, fault.at)
    return loss && firstAfter(fault.worker.diary, loss.at, (line) => line.connection === 'online')
  }

  #caughtUp(fault) {
    const back = this.#back(fault)
    return back && fault.worker.diary.find((line) => line.at >= back.at && answered(line) >= back.commits)
  }

  async #relay(share) {
    const team = this.world.workers().filter((worker) => !worker.killed && !worker.ended)
    const fault = (this.relay = { share, at: now() })
    await this.world.restartRelay()
    fault.listeningMs = now() - fault.at
    const again = ({ diary }) => {
      const loss = lossAfter(diary, fault.at)
      return loss && firstAfter(diary, loss.at, (line) => acknowledged(line) > acknowledged(loss))
    }
    await until(() => team.every((worker) => worker.ended || again(worker)))
    fault.workers = team.map((worker) => ({ name: worker.name, unacknowledged: unacknowledgedAt(worker.diary, fault.at), recoveryMs: again(worker)?.at - fault.at }))
    fault.unacknowledged = fault.workers.reduce((sum, worker) => sum + worker.unacknowledged, 0)
    fault.counts = fault.unacknowledged > 0
    this.#say(`the relay was killed with ${fault.unacknowledged} unacknowledged commits`, fault)
  }

  #say(what, fault) {
    console.log(`\n${what}, at ${Math.round(fault.share * 100)} % of the work${fault.counts ? '' : ': that does not count, and is repeated'}`)
  }

  /** Says what does not hold. `arrived(worker)`: how many of a worker's commits are in the heap. */
  judge(expect, arrived) {
    const { kill, cut, relay } = this
    for (const [what, fault] of Object.entries({ 'worker was killed': kill, 'worker was cut off': cut, 'relay was killed': relay })) expect(fault?.counts, `no ${what} with commits in flight`)
    if (kill?.counts) {
      kill.arrived = arrived(kill.worker) - acknowledged(kill.last)
      expect(kill.arrived >= 0, `${-kill.arrived} acknowledged commits of the killed worker are gone`)
      // A commit is sent just before the line that tells of it.
      expect(kill.arrived <= kill.unacknowledged + 1, `the killed worker made ${kill.last.commits} commits, and ${arrived(kill.worker)} arrived`)
      // What it had taken and not brought home: in hand, or done in a commit that died with it.
      kill.left = [...kill.taken].map((index) => ({ index, ...kill.results.get(index) })).filter(({ by }) => by !== kill.worker.name)
      for (const { index, by, at } of kill.left) expect(by !== undefined && at > kill.at, `partition ${index} of the killed worker was not done by another`)
    }
    if (cut?.counts) {
      expect(cut.offlineMs >= 2000, `the worker that was cut off was back after ${cut.offlineMs} ms`)
      expect(cut.meanwhile > 0, 'the worker that was cut off did not write on')
      expect(cut.recoveryMs >= 0, 'what the worker wrote while it was cut off was not acknowledged')
    }
    if (relay?.counts) for (const { name, recoveryMs } of relay.workers) expect(recoveryMs > 0, `no commit of ${name} was acknowledged after the relay was killed`)
  }

  /** The faults as rows of the table. */
  rows() {
    const { kill, cut, relay } = this
    const at = ({ share }) => `at ${Math.round(share * 100)} %`
    const rows = []
    if (kill?.left) {
      const came = Math.min(kill.arrived, kill.unacknowledged)
      rows.push([`worker-0 killed ${at(kill)}`, `${kill.unacknowledged} commits unacknowledged in its last line: ${came} had reached the relay and count, ${kill.unacknowledged - came} died with it`])
      rows.push(['  until recovered', kill.left.map(({ index, by, at: done }) => `partition ${index}, which it had taken, was done by ${by} ${seconds(done - kill.at)} after the kill`).join('; ')])
    }
    if (cut?.counts) {
      rows.push([`worker-1 cut off ${at(cut)}`, `${cut.unacknowledged} commits unacknowledged at the cut, ${cut.meanwhile} more made until it was online again, ${seconds(cut.offlineMs)} after the cut`])
      rows.push(['  until recovered', `all ${cut.waiting} that waited were answered ${seconds(cut.recoveryMs)} after it was online again: ${cut.waiting - cut.refused} acknowledged, ${cut.refused} refused (results of partitions that others had by then)`])
    }
    if (relay?.counts) {
      rows.push([`relay killed ${at(relay)}`, `commits unacknowledged at the kill: ${relay.workers.map(({ name, unacknowledged }) => `${unacknowledged} of ${name}`).join(', ')}`])
      rows.push(['  until recovered', `listening ${seconds(relay.listeningMs)} after the kill; first commit acknowledged: ${relay.workers.map(({ name, recoveryMs }) => `${name} after ${seconds(recoveryMs)}`).join(', ')}`])
    }
    return rows
  }
}

/** Looks every few milliseconds, for a minute. */
async function until(truth) {
  const end = now() + 60_000
  while (!truth() && now() < end) await new Promise((resolve) => setTimeout(resolve, 5))
}
