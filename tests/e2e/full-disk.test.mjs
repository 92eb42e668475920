// The relay's file system runs full under a writer, for real: a file system of a few megabytes in memory.
// Goal: no acknowledged write is lost, `flush()` waits or times out but does not lie, the relay lives, reads go on, and all
// that was written is there once there is room again, without a restart of anything.
//
// Mounting needs to be root; where it is not possible the test is skipped.
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { rmSync, statfsSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { test } from 'node:test'
import { open } from 'coheap'
import { closeClean } from './clean.mjs'
import { Relay } from './relay.mjs'

const megabytes = 24

/** Mounts a small file system over the relay's data directory; what to call to unmount it, or nothing if that is not allowed here. */
function mountSmall(relay) {
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${megabytes}m`, 'tmpfs', relay.data], { stdio: 'ignore' })
  } catch {
    return undefined
  }
  return () => execFileSync('umount', [relay.data])
}

const until = async (what, condition) => {
  for (let tries = 0; !condition(); tries++) {
    assert.ok(tries < 600, what)
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}

test('p5: a disk that is full refuses for a while, and forgets nothing', { timeout: 120_000 }, async (t) => {
  const relay = new Relay()
  const unmount = mountSmall(relay)
  if (unmount === undefined) return t.skip('no file system can be mounted here')
  try {
    await relay.start('--min-free-mb', '0')
    const ballast = path.join(relay.data, 'ballast')
    writeFileSync(ballast, Buffer.alloc(6 << 20, 1))
    const writer = await open(relay.url('full'), { initial: { rows: [] } })
    const reader = await open(relay.url('full'))
    const codes = []
    writer.addEventListener('error', (error) => codes.push(error.code))
    let saved = 0
    let written = 0
    const room = () => { const { bavail, bsize } = statfsSync(relay.data); return bavail * bsize }
    const write = () => {
      writer.transact(() => { writer.root.rows.push(writer.alloc({ n: written, text: 'x'.repeat(50_000) })); writer.root.last = written })
      written += 1
    }
    let full
    while (full === undefined) {
      write()
      try {
        await writer.flush({ timeoutMs: 1_500 })
        saved = written
      } catch (error) {
        full = error.code
      }
      assert.ok(written < 1_000, `the disk is full at last: ${room()} bytes of room`)
    }
    assert.deepEqual(codes, ['ERR_STORAGE_FULL'], 'the program is told, once')
    t.diagnostic(`full after ${saved} writes of 50 kB, ${room()} bytes of room, flush: ${full}, events: ${[...new Set(codes)]}`)
    // Who reads goes on reading, also somebody new.
    const fresh = await open(relay.url('full'))
    assert.ok(fresh.root.last >= saved - 1, `${fresh.root.last} of ${saved}`)
    await closeClean(fresh)
    for (let n = 0; n < 5; n++) write()
    await assert.rejects(writer.flush({ timeoutMs: 1_000 }))
    rmSync(ballast)
    await writer.flush({ timeoutMs: 20_000 })
    await until('the reader sees it', () => reader.root.last === written - 1)
    // A kill now: it is there.
    await relay.stop('SIGKILL')
    await relay.start('--min-free-mb', '0')
    const later = await open(relay.url('full'))
    await later.sync({ timeoutMs: 20_000 })
    assert.equal(later.root.last, written - 1)
    const rows = await later.load([...later.root.rows])
    assert.deepEqual(rows.map(({ n, text }) => [n, text.length]), rows.map((_, n) => [n, 50_000]))
    assert.equal(rows.length, written)
    await closeClean(later)
    await closeClean(reader)
    await closeClean(writer)
  } finally {
    await relay.stop('SIGKILL')
    unmount()
    await relay.dispose()
  }
})
