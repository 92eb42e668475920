export { HeapError } from './errors.js'
