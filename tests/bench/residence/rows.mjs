// What is measured, and what is aimed at. A system is a program beside this file; `data` is put into its server once, before.
const ENTRIES = 1_000_000

export const rows = [
  {
    name: 'one-key',
    title: `one key of a map of ${ENTRIES} entries with values of 40 bytes`,
    data: { entries: ENTRIES },
    figures: [
      { figure: 'fresh process, from open() to the value', unit: 'ms', target: 100 },
      { figure: 'another key, the heap open', unit: 'ms', target: 10 },
    ],
    systems: { coheap: 'one-key-coheap', yjs: 'one-key-yjs', redis: 'one-key-redis' },
  },
  {
    name: 'one-key-memory',
    title: 'the same: what it takes, above an open heap (a connection) with nothing in it',
    data: { entries: ENTRIES },
    counted: true,
    figures: [
      { figure: 'received', unit: 'kB', target: 200 },
      { figure: 'resident memory grown', unit: 'MB', target: 8 },
    ],
    systems: { coheap: 'one-key-memory-coheap', yjs: 'one-key-memory-yjs', redis: 'one-key-memory-redis' },
  },
  {
    name: 'scan',
    title: `${ENTRIES} entries read by one process with a budget of 32 MB`,
    data: { entries: ENTRIES },
    figures: [
      { figure: 'VmHWM − VmRSS after open and gc', unit: 'MB', target: 64 },
      { figure: 'time', unit: 's' },
    ],
    systems: { coheap: 'scan-coheap', yjs: 'scan-yjs', redis: 'scan-redis' },
  },
  {
    name: 'objects',
    title: '100000 objects {id, name, count} in one segment, each read once, nothing held: wasm pages + heapUsed + external',
    data: { objects: 100_000 },
    figures: [
      { figure: 'per object', unit: 'bytes', target: 200 },
      { figure: 'with all objects held, per object', unit: 'bytes' },
    ],
    systems: { coheap: 'objects-coheap', yjs: 'objects-yjs', plain: 'objects-plain' },
  },
  {
    name: 'segments',
    title: '10000 segments (documents) of 10 keys, loaded and left: wasm pages + heapUsed + external',
    data: { segments: 10_000 },
    figures: [{ figure: 'per segment', unit: 'bytes', target: 400 }],
    systems: { coheap: 'segments-coheap', yjs: 'segments-yjs' },
    // Systems that make their own data.
    own: ['yjs'],
  },
  {
    name: 'reads',
    title: 'a map of 1000 keys: the keys in turn, 10000000 reads; and one property, as often',
    data: { keys: 1_000 },
    figures: [
      { figure: 'live, times a plain object', unit: '×', target: 2.5 },
      { figure: 'snapshot, times a plain object', unit: '×', target: 1.1 },
      { figure: 'one property, live, times a plain object', unit: '×' },
      { figure: 'a read of a plain object', unit: 'ns' },
    ],
    systems: { coheap: 'reads-coheap' },
  },
  {
    name: 'page-in',
    title: 'a segment of 100 entries, from load() to its value',
    data: { pages: 200 },
    figures: [{ figure: 'median of 200', unit: 'ms', target: 2 }],
    systems: { coheap: 'page-in-coheap' },
  },
]
