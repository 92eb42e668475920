// What is computed: the same code runs in every worker and in the plain computation that the demo compares with.

import { readFileSync } from 'node:fs'

const EARTH_KM = 6371.0088
const NEIGHBOURS = 10

/** Kilometres between two cities on a sphere (haversine formula). */
function distance(a, b) {
  const rad = Math.PI / 180
  const lat = ((b.lat - a.lat) * rad) / 2
  const lng = ((b.lng - a.lng) * rad) / 2
  const h = Math.sin(lat) ** 2 + Math.cos(a.lat * rad) * Math.cos(b.lat * rad) * Math.sin(lng) ** 2
  return 2 * EARTH_KM * Math.asin(Math.min(1, Math.sqrt(h)))
}

/** The mean distance from a city to its nearest neighbours among `cities`. */
function isolation(city, cities) {
  const nearest = []
  for (const other of cities) {
    if (other === city) continue
    const km = distance(city, other)
    if (nearest.length === NEIGHBOURS && km >= nearest[NEIGHBOURS - 1]) continue
    let at = nearest.length
    while (at > 0 && nearest[at - 1] > km) at--
    nearest.splice(at, 0, km)
    if (nearest.length > NEIGHBOURS) nearest.pop()
  }
  return nearest.length === 0 ? 0 : nearest.reduce((sum, km) => sum + km, 0) / nearest.length
}

/** One partition's result: per country how many cities, the sum of their isolations, the longest name, the first letters. */
export function partitionResult(cities) {
  const countries = {}
  for (const city of cities) {
    const one = (countries[city.country] ??= { count: 0, sum: 0, longest: '', letters: {} })
    one.count++
    one.sum += isolation(city, cities)
    if (longer(city.name, one.longest)) one.longest = city.name
    const letter = [...city.name][0] ?? ''
    one.letters[letter] = (one.letters[letter] ?? 0) + 1
  }
  return { cities: cities.length, countries }
}

/** Adds up partitions' results, in the order of the partitions, so that floats come out bit by bit the same. */
export function total(results) {
  const countries = {}
  for (const result of results) {
    for (const [name, part] of Object.entries(result.countries)) {
      const one = (countries[name] ??= { count: 0, sum: 0, longest: '', letters: {} })
      one.count += part.count
      one.sum += part.sum
      if (longer(part.longest, one.longest)) one.longest = part.longest
      for (const [letter, count] of Object.entries(part.letters)) one.letters[letter] = (one.letters[letter] ?? 0) + count
    }
  }
  return Object.fromEntries(Object.entries(countries).sort(([a], [b]) => (a < b ? -1 : 1)).map(([name, one]) => {
    const common = Object.entries(one.letters).sort(([a, n], [b, m]) => m - n || (a < b ? -1 : 1))[0][0]
    return [name, { count: one.count, mean: one.sum / one.count, longest: one.longest, letter: common }]
  }))
}

/** The longer name; of two equally long ones the first in code unit order. */
function longer(a, b) {
  return a.length > b.length || (a.length === b.length && a < b)
}

/** Checksum over entries in the order they come (FNV-1a over their JSON). */
export class Checksum {
  #hash = 0x811c9dc5
  entries = 0
  add(key, city) {
    const text = `${key} ${city.name} ${city.lat} ${city.lng} ${city.country} ${city.admin1} ${city.admin2}`
    for (let i = 0; i < text.length; i++) this.#hash = Math.imul(this.#hash ^ text.charCodeAt(i), 0x01000193)
    this.entries++
  }
  toString() {
    return `${this.entries}:${(this.#hash >>> 0).toString(16)}`
  }
}

/** The most memory this process ever had resident: the kernel's own mark, on Linux. */
export function peakBytes() {
  try {
    return Number(/^VmHWM:\s*(\d+) kB$/m.exec(readFileSync('/proc/self/status', 'utf8'))[1]) * 1024
  } catch {
    return process.resourceUsage().maxRSS * 1024
  }
}
