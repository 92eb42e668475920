// Opens a heap, adds 1 every second, and prints the count whenever it changes, whoever changed it.
import { counter, open } from 'coheap'

const heap = await open(process.argv[2] ?? 'ws://127.0.0.1:7420/heap/counter', { initial: { count: counter() } })
heap.watch(() => heap.root.count.value, count => console.log(count), { initial: true })

const timer = setInterval(() => heap.root.count.add(1), 1000)
process.once('SIGINT', () => {
  clearInterval(timer)
  heap.close()
})
