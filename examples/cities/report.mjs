// What the demo prints.

export const seconds = (ms) => `${(ms / 1000).toFixed(2)} s`
export const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`

export function bar(label, done, all) {
  const width = 32
  const full = Math.round((done / all) * width)
  const line = `${label.padEnd(16)} [${'#'.repeat(full)}${'.'.repeat(width - full)}] ${done}/${all}`
  if (process.stdout.isTTY) process.stdout.write(`\r${line}${done >= all ? '\n' : ''}`)
  else if (done >= all || done % Math.ceil(all / 10) === 0) console.log(line)
}

export function table(rows) {
  const width = Math.max(...rows.map(([name]) => name.length))
  console.log()
  for (const [name, value] of rows) console.log(`${name.padEnd(width)}  ${value}`)
}
