// A relay in memory, for tests of the JavaScript: one heap, no disk, no guard. It speaks `core/WIRE.md` as far as one honest
// replica needs, so that everything from `open()` down to the engine is the real thing, and it can be told to misbehave.
//
// What is sent lies in a queue for each direction of each connection. As a rule each message is delivered in a task of its
// own; with `pumped` it lies there until the test has it delivered, and is lost with the connection.
import { Reader, Writer } from '../src/edge.js'
import type { WebSocketLike } from '../src/index.js'
import { encodeId } from '../src/uuid.js'

/** `gen`: 0 and 1 are the first generation of either engine; the relay rolls nothing, so there are no others. */
interface Part { kind: number; segment: string; gen: number; engine: number; layout: number; bytes: Uint8Array }
interface Entry { author: Hello; seq: number; uid: Uint8Array; label: string | undefined; parts: Part[]; code: number; via: FakeSocket | undefined; hash?: Uint8Array; leavesOut?: { segment: string; at: number } }
interface Hello { replica: string; name: string }
interface Group { group: string; run: string; members: string[]; done: Set<string>; held: Map<string, { by: string; grant: number }> }

const NO_UID = new Uint8Array(8)
/** How many commits of a replica a relay speaks of. */
const RING = 256
const EPOCH = new Uint8Array([1, 7, 7, 7, 7, 7, 7, 7, 7])

export class FakeRelay {
  readonly log: Entry[] = []
  readonly connections = new Set<FakeSocket>()
  readonly groups = new Map<string, Group>()
  readonly shown = new Map<string, Map<string, { hello: Hello; state: Uint8Array }>>()
  /** While true nothing connects. */
  down = false
  /** While true commits are taken and not answered: its disk is slow. */
  silent = false
  readonly #owed: (() => void)[] = []
  /** The next commit is refused with this code. */
  refuseNext = 0
  /** While set, commits are answered with this frame instead of being taken. */
  meet: ((seq: number) => { kind: number; body: Uint8Array }) | undefined
  /** The next that comes back is asked for what it holds, and told that what is here stays. */
  conflictNext = false
  /** Closes the next connection with this code instead of an Ok. */
  closeNext = 0
  /** Who comes back that many entries behind is given the whole state of its segments instead of the entries. */
  catchUpBehind = Infinity
  /** How often that was so. */
  catchUps = 0
  /** While true nothing is delivered but by {@link FakeSocket.pump}. */
  pumped = false
  grants = 100
  messages = 0
  /** How many entries of the log each replica was given. */
  readonly seen = new Map<string, number>()
  /** Segments that are not what the log says: 2 deleted, 3 quarantined. */
  readonly statuses = new Map<string, number>()
  /** Commits that came although the log had them. */
  again = 0
  /** Bytes of the largest commit frame that came. */
  largestCommit = 0

  /** What replicas could not take in, as they said it. */
  readonly reports: { segment: string; at: number }[] = []
  /** Answers a report: the entry that is left out of the segment, or `undefined` if there is none. Without it nobody is answered. */
  judge: ((segment: string, at: number) => number | undefined) | undefined

  /** For `open(url, { webSocket: relay.socket })`. */
  readonly socket = (): WebSocketLike => new FakeSocket(this)

  /** Answers a commit, at once or once the disk is quick again. */
  whenQuick(answer: () => void): void {
    if (this.silent) this.#owed.push(answer)
    else answer()
  }

  /** The disk is quick again: what was taken meanwhile is answered, on the connections that are still there. */
  answer(): void {
    this.silent = false
    for (const answer of this.#owed.splice(0)) answer()
  }

  /** Cuts every connection. */
  cut(code = 1006): void {
    for (const connection of [...this.connections]) connection.cut(code)
  }

  segmentState(id: string): Uint8Array {
    const parts = this.log.filter((entry, at) => entry.code === 0 && !this.isLeftOut(id, at)).flatMap(entry => entry.parts).filter(part => part.segment === id)
    const first = parts[0] ?? { gen: 0, engine: 0, layout: 1 }
    const w = new Writer().idOf(id).varint(0).u8(this.statuses.get(id) ?? (parts.length > 0 ? 1 : 0)).u8(first.engine).u8(first.layout).u8(first.gen).bytes(new Uint8Array())
    w.varint(parts.length)
    for (const part of parts) w.bytes(part.bytes)
    return w.slice()
  }

  isLeftOut(segment: string, at: number): boolean {
    return this.log.some(({ leavesOut }) => leavesOut?.segment === segment && leavesOut.at === at)
  }

  /** Somebody who is not here commits these bytes to a segment. */
  inject(segment: string, bytes: Uint8Array): void {
    this.#push([{ kind: 0, segment, gen: 0, engine: 0, layout: 1, bytes }])
  }

  /** A part counts for nothing from here on. */
  leaveOut(segment: string, at: number): void {
    this.#push([], { segment, at })
  }

  #push(parts: Part[], leavesOut?: { segment: string; at: number }): void {
    const seq = this.log.length + 1
    const entry = { author: { replica: encodeId(new Uint8Array(16).fill(7)), name: '' }, seq, uid: u64(seq), label: undefined, parts, code: 0, via: undefined }
    this.log.push(leavesOut === undefined ? entry : { ...entry, leavesOut })
    for (const connection of this.connections) connection.catchUp()
  }

  tellGroup(group: Group): void {
    const w = new Writer().str(group.group).str(group.run).varint(group.members.length)
    for (const member of group.members) w.idOf(member)
    w.varint(group.done.size)
    for (const key of group.done) w.str(key)
    w.varint(group.held.size)
    for (const [key, { by }] of group.held) w.str(key).varint(group.members.indexOf(by))
    for (const connection of this.connections) if (group.members.includes(connection.hello?.replica ?? '')) connection.send1(0x52, w.slice())
  }
}

export class FakeSocket implements WebSocketLike {
  binaryType = 'blob'
  bufferedAmount = 0
  hello: Hello | undefined
  readonly #relay: FakeRelay
  #own: string[] = []
  readonly #listeners = new Map<string, ((event: unknown) => void)[]>()
  readonly #follows = new Set<string>()
  readonly #authors = new Map<string, number>()
  #sent: Uint8Array = NO_UID
  #sentUpTo = 0
  #closed = false

  /** What is under way to the relay and to the replica. */
  readonly up: (() => void)[] = []
  readonly down: (() => void)[] = []

  constructor(relay: FakeRelay) {
    this.#relay = relay
    this.#under(this.down, () => {
      if (relay.down) return this.cut(1006)
      relay.connections.add(this)
      this.#emit('open', {})
    })
  }

  #under(way: (() => void)[], delivery: () => void): void {
    way.push(delivery)
    if (!this.#relay.pumped) setImmediate(() => way.shift()?.())
  }

  /** Delivers the next of what is under way; false if nothing is. */
  pump(way: 'up' | 'down'): boolean {
    const delivery = this[way].shift()
    delivery?.()
    return delivery !== undefined
  }

  addEventListener(type: string, fn: (event: never) => void): void {
    this.#listeners.set(type, [...(this.#listeners.get(type) ?? []), fn as (event: unknown) => void])
  }

  #emit(type: string, event: unknown): void {
    for (const fn of this.#listeners.get(type) ?? []) fn(event)
  }

  close(): void {
    this.cut(1000)
  }

  /** Ends the connection; what is under way is lost. */
  cut(code: number): void {
    if (this.#closed) return
    this.#closed = true
    this.#relay.connections.delete(this)
    this.#leave()
    this.up.length = 0
    this.down.length = 0
    this.#under(this.down, () => this.#emit('close', { code, reason: '' }))
  }

  /** What it showed of itself is gone with it. */
  #leave(): void {
    for (const [group, shown] of this.#relay.shown) {
      if (!shown.delete(this.hello?.replica ?? '')) continue
      const gone = new Writer().str(group).idOf(this.hello!.replica).u8(1).varint(1).str('').str('').bytes(new Uint8Array()).slice()
      for (const connection of this.#relay.connections) connection.send1(0x55, gone)
    }
  }

  send(message: Uint8Array): void {
    if (this.#closed) return
    const copy = message.slice()
    this.#under(this.up, () => {
      this.#relay.messages += 1
      const r = new Reader(copy)
      r.varint()
      while (r.left > 0) {
        const kind = r.u8()
        const body = r.bytes()
        if (kind === 0x02) this.#relay.largestCommit = Math.max(this.#relay.largestCommit, body.length)
        this.#frame(kind, new Reader(body))
      }
    })
  }

  /** Sends one frame; `upTo`: how much of the log the replica has with it. */
  send1(kind: number, body: Uint8Array, upTo?: number): void {
    if (this.#closed) return
    const message = new Writer().varint(0).u8(kind).bytes(body).slice()
    this.#under(this.down, () => {
      if (upTo !== undefined) this.#relay.seen.set(this.hello!.replica, upTo)
      this.#emit('message', { data: message.buffer })
    })
  }

  #frame(kind: number, r: Reader): void {
    const relay = this.#relay
    switch (kind) {
      case 0x01: return this.#hello(r)
      case 0x02: return this.#commit(r)
      case 0x03: {
        const id = readSeg(r)
        const nonce = r.varint()
        const state = relay.segmentState(id)
        this.#catchUp()
        this.#follows.add(id)
        return this.send1(0x47, new Writer().varint(nonce).varint(relay.log.length).varint(0).bytes(state).slice())
      }
      case 0x04: return void this.#follows.delete(readSeg(r))
      case 0x07: {
        const [segment, at] = [readSeg(r), r.varint()]
        relay.reports.push({ segment, at })
        if (relay.judge === undefined) return
        const bad = relay.judge(segment, at)
        if (bad !== undefined && !relay.isLeftOut(segment, bad)) relay.leaveOut(segment, bad)
        return this.send1(0x58, new Writer().varint(0).idOf(segment).varint(bad ?? 0).slice())
      }
      case 0x05: {
        const w = new Writer().varint(0).varint(0).varint(this.#follows.size)
        for (const id of this.#follows) w.u8(2).raw(relay.segmentState(id))
        const { length } = relay.log
        return this.send1(0x44, new Writer().varint(length - 1).varint(1).varint(length).varint(0).bytes(w.slice()).slice(), length)
      }
      case 0x06: {
        this.#catchUp()
        return this.send1(0x4d, new Writer().varint(r.varint()).varint(relay.log.length).slice())
      }
      case 0x09: return this.#join(r)
      case 0x0a: {
        const group = relay.groups.get(`${r.str()}\n${r.str()}`)
        if (group === undefined) return
        group.members = group.members.filter(member => member !== this.hello!.replica)
        return relay.tellGroup(group)
      }
      case 0x0b: {
        const nonce = r.varint()
        const group = this.#group(r.str(), r.str())
        const key = r.str()
        const held = group.held.get(key)
        const mine = held === undefined || held.by === this.hello!.replica
        const state = group.done.has(key) ? 2 : mine ? 0 : 1
        const grant = state === 0 ? held?.grant ?? ++relay.grants : 0
        if (state === 0) group.held.set(key, { by: this.hello!.replica, grant })
        this.send1(0x53, new Writer().varint(nonce).str(group.group).str(group.run).str(key).varint(grant).u8(state).slice())
        return relay.tellGroup(group)
      }
      case 0x0c: {
        const group = this.#group(r.str(), r.str())
        const key = r.str()
        if (group.held.get(key)?.grant === r.varint()) group.held.delete(key)
        return relay.tellGroup(group)
      }
      case 0x0e: return this.send1(0x56, new Writer().varint(r.varint()).slice())
      case 0x0d: {
        const group = r.str()
        const clear = r.u8() === 1
        const state = r.bytes().slice()
        const shown = relay.shown.get(group) ?? new Map<string, { hello: Hello; state: Uint8Array }>()
        relay.shown.set(group, shown)
        if (clear) shown.delete(this.hello!.replica)
        else shown.set(this.hello!.replica, { hello: this.hello!, state })
        for (const connection of relay.connections) {
          for (const { hello, state: each } of shown.values()) connection.send1(0x55, new Writer().str(group).idOf(hello.replica).u8(0).varint(1).str(hello.name).str('').bytes(each).slice())
          if (clear) connection.send1(0x55, new Writer().str(group).idOf(this.hello!.replica).u8(1).varint(1).str('').str('').bytes(new Uint8Array()).slice())
        }
        return
      }
    }
  }

  #group(name: string, run: string): Group {
    const key = `${name}\n${run}`
    let group = this.#relay.groups.get(key)
    if (group === undefined) this.#relay.groups.set(key, (group = { group: name, run, members: [], done: new Set(), held: new Map() }))
    if (!group.members.includes(this.hello!.replica)) group.members.push(this.hello!.replica)
    return group
  }

  #join(r: Reader): void {
    const nonce = r.varint()
    const name = r.str()
    const run = r.str() || '~default'
    const group = this.#group(name, run)
    r.varint()
    const held = r.list(each => ({ key: each.str(), grant: each.varint() }))
    for (const { key, grant } of held) {
      const now = group.held.get(key)
      if (now === undefined && !group.done.has(key)) group.held.set(key, { by: this.hello!.replica, grant })
      else if (now?.grant !== grant) this.send1(0x54, new Writer().str(name).str(run).str(key).varint(grant).slice())
    }
    for (const key of r.list(each => each.str())) if (!group.held.has(key)) group.done.add(key)
    this.send1(0x51, new Writer().varint(nonce).str(name).str(run).varint(group.members.indexOf(this.hello!.replica)).slice())
    this.#relay.tellGroup(group)
  }

  #hello(r: Reader): void {
    const relay = this.#relay
    if (relay.closeNext !== 0) {
      const code = relay.closeNext
      relay.closeNext = 0
      return this.cut(code)
    }
    for (let i = 0; i < 3; i++) r.u8()
    r.u8()
    r.varint()
    const flags = r.varint()
    r.str()
    const name = r.str()
    r.str()
    const own = r.list(each => ({ id: each.id(), acked: each.varint() }))
    this.hello = { replica: own[0]!.id, name }
    this.#own = own.map(each => each.id)
    if ((flags & 4) !== 0 && relay.log.length === 0) return this.cut(4007)
    r.varint() // the epoch: counter and random
    raw(r, 8)
    const fresh = (flags & 1) !== 0
    this.#readResume(r, fresh)
  }

  #readResume(r: Reader, fresh: boolean): void {
    const relay = this.#relay
    const cut = this.#cutOf(r, fresh)
    const rings = this.#own.map(own => {
      const rows = relay.log.filter(entry => entry.author.replica === own).map(entry => new Writer().varint(entry.seq).raw(entry.uid).u8(entry.code === 0 ? 0 : 1).raw(entry.code === 0 ? contentHash(entry) : u64(entry.code)).slice())
      return rows.slice(-RING)
    })
    const restore = !fresh && relay.conflictNext
    if (restore) relay.conflictNext = false
    const catchUp = !fresh && !restore && relay.log.length - cut >= relay.catchUpBehind
    if (catchUp) relay.catchUps += 1
    this.#sentUpTo = fresh || catchUp || restore ? relay.log.length : cut
    const bulk = new Writer()
    if (catchUp) {
      bulk.varint(this.#follows.size)
      for (const id of this.#follows) bulk.raw(relay.segmentState(id))
    }
    const w = new Writer().u8(1).varint(0).varint((relay.log.length > 0 ? 1 : 0) | (restore ? 2 : 0) | (catchUp ? 4 : 0)).varint(1_700_000_000_000).raw(EPOCH)
    w.varint(1).raw(EPOCH).varint(0).varint(this.#sentUpTo).varint(64)
    w.varint(rings.length)
    rings.forEach((rows, owner) => {
      w.varint(owner).varint(rows.length)
      for (const row of rows) w.raw(row)
    })
    this.send1(0x41, w.varint(0).bytes(bulk.slice()).slice(), this.#sentUpTo)
    this.#catchUp()
    for (const own of this.#own) {
      const last = relay.log.filter(entry => entry.author.replica === own).at(-1)
      if (last?.code === 0) this.#answer(last)
    }
  }

  #cutOf(r: Reader, fresh: boolean): number {
    // Behind the epoch: the cut, then the bulk of resident segments.
    const cut = fresh ? 0 : r.varint()
    if (fresh) r.varint()
    r.varint()
    const bulk = new Reader(r.bytes())
    for (const id of bulk.list(each => { const seg = each.id(); if (each.u8() === 2) each.id(); return seg })) this.#follows.add(id)
    return cut
  }

  #commit(r: Reader): void {
    const relay = this.#relay
    const flags = r.varint()
    const author = { replica: this.#own[r.varint()]!, name: this.hello!.name }
    const seq = r.varint()
    const uid = raw(r, 8)
    const prev = (flags & 1) !== 0 ? raw(r, 8) : this.#sent
    if ((flags & 2) !== 0) {
      // What it comes after was sent before it.
      r.varint()
      r.varint()
      raw(r, 8)
    }
    this.#sent = uid
    const claim = (flags & 4) !== 0 ? { group: r.str(), run: r.str(), key: r.str(), grant: r.varint() } : undefined
    const label = (flags & 8) !== 0 ? r.str() : undefined
    const parts = r.list(readPart)
    if (relay.meet !== undefined) {
      const { kind, body } = relay.meet(seq)
      return this.send1(kind, body)
    }
    const line = relay.log.filter(entry => entry.author.replica === author.replica)
    const known = line.find(entry => entry.seq === seq)
    if (known !== undefined) {
      relay.again += 1
      return relay.whenQuick(() => { this.#answer(known) })
    }
    const last = line.at(-1)
    const expected = last === undefined ? NO_UID : last.code === 0 ? last.uid : last.uid.map(byte => ~byte)
    // The author does not know yet that the one before it was refused, and will send it made anew.
    if (seq !== (last?.seq ?? 0) + 1 || prev.some((byte, i) => byte !== expected[i])) return
    const group = claim === undefined ? undefined : this.#group(claim.group, claim.run)
    const claimLost = group !== undefined && group.held.get(claim!.key)?.grant !== claim!.grant
    const code = relay.refuseNext !== 0 ? relay.refuseNext : claimLost ? 35 : 0
    relay.refuseNext = 0
    const entry = { author, seq, uid, label, parts, code, via: this }
    relay.log.push(entry)
    for (const part of parts) this.#follows.add(part.segment)
    relay.whenQuick(() => {
      for (const connection of relay.connections) connection.#catchUp()
      this.#answer(entry)
      if (code !== 0 || group === undefined) return
      group.held.delete(claim!.key)
      group.done.add(claim!.key)
      relay.tellGroup(group)
    })
  }

  #answer({ author, seq, uid, code }: Entry): void {
    const owner = this.#own.indexOf(author.replica)
    if (code === 0) this.send1(0x46, new Writer().varint(owner).varint(seq).varint(this.#relay.log.length).slice())
    else this.send1(0x4a, new Writer().varint(owner).varint(seq).raw(uid).varint(code).varint(this.#relay.log.length).slice())
  }

  /** Sends what the log has and this connection was not sent. */
  catchUp(): void {
    this.#catchUp()
  }

  #catchUp(): void {
    if (this.hello === undefined) return
    const { log } = this.#relay
    for (; this.#sentUpTo < log.length; this.#sentUpTo++) {
      const entry = log[this.#sentUpTo]!
      if (entry.leavesOut !== undefined) {
        const { segment, at } = entry.leavesOut
        if (this.#follows.has(segment)) this.send1(0x57, new Writer().varint(this.#sentUpTo).varint(0).idOf(segment).varint(at).u8(0).slice(), this.#sentUpTo + 1)
        else this.send1(0x45, new Writer().varint(this.#sentUpTo + 1).slice(), this.#sentUpTo + 1)
        continue
      }
      const [yours, at] = [entry.via === this, this.#sentUpTo]
      const flags = (yours ? 1 : 0) | (entry.label === undefined ? 0 : 2) | (entry.code === 0 ? 0 : 4)
      const w = new Writer().varint(this.#sentUpTo).varint(flags).varint(this.#author(entry.author)).varint(entry.seq).raw(entry.uid)
      if (entry.label !== undefined) w.str(entry.label)
      const parts = yours || entry.code !== 0 ? [] : entry.parts.filter(part => this.#follows.has(part.segment) && !this.#relay.isLeftOut(part.segment, at))
      w.varint(parts.length)
      for (const part of parts) {
        w.u8(part.kind).varint(0).idOf(part.segment).u8(part.gen)
        if (part.kind === 1) w.u8(part.engine).u8(part.layout)
        w.bytes(part.bytes)
      }
      this.send1(0x42, w.slice(), this.#sentUpTo + 1)
    }
  }

  #author(hello: Hello): number {
    let number = this.#authors.get(hello.replica)
    if (number === undefined) {
      this.#authors.set(hello.replica, (number = this.#authors.size))
      this.send1(0x50, new Writer().varint(number).idOf(hello.replica).str(hello.name).str('').slice())
    }
    return number
  }
}

/** What a replica compares with its own version of the commit (`core/src/commit.rs`): FNV-1a, 64 bits, as two halves. */
function contentHash(entry: Entry): Uint8Array {
  if (entry.hash !== undefined) return entry.hash
  let [high, low] = [0xcbf2_9ce4, 0x8422_2325]
  const eat = (bytes: Uint8Array): void => {
    for (const byte of bytes) {
      low = (low ^ byte) >>> 0
      // Times 2⁴⁰ + 0x1b3.
      const product = low * 0x1b3
      high = (high * 0x1b3 + Math.floor(product / 2 ** 32) + (low << 8 >>> 0)) % 2 ** 32
      low = product % 2 ** 32
    }
  }
  for (const { segment, gen, bytes } of entry.parts) {
    eat(new Writer().idOf(segment).slice())
    eat(new Uint8Array(16).fill(gen, 15))
    eat(u64(bytes.length))
    eat(bytes)
  }
  entry.hash = new Uint8Array(8)
  new DataView(entry.hash.buffer).setUint32(0, low, true)
  new DataView(entry.hash.buffer).setUint32(4, high, true)
  return entry.hash
}

function raw(r: Reader, length: number): Uint8Array {
  return Uint8Array.from({ length }, () => r.u8())
}

function u64(n: number): Uint8Array {
  const view = new DataView(new ArrayBuffer(8))
  view.setBigUint64(0, BigInt(n), true)
  return new Uint8Array(view.buffer)
}

function readSeg(r: Reader): string {
  if (r.varint() !== 0) throw new Error('the fake relay declares no segment numbers')
  return r.id()
}

function readPart(r: Reader): Part {
  const kind = r.u8()
  const segment = readSeg(r)
  const gen = r.u8()
  if (gen > 1) throw new Error('the relay in memory rolls nothing')
  const [engine, layout] = kind === 1 ? [r.u8(), r.u8()] : [0, 1]
  return { kind, segment, gen, engine, layout, bytes: r.bytes().slice() }
}
