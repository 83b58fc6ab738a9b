// The same as `workers.py`, over utp-native (libutp from Node.js).
//
//   node utp_native.js receive HOST PORT
//   node utp_native.js send HOST PORT
//
// utp-native is the one that the interop tests use: `npm install` in tests/interop.

'use strict'

const readline = require('readline')
const utp = require('../../tests/interop/node_modules/utp-native')

const CHUNK = Buffer.alloc(64 * 1024)
const BINS_PER_SECOND = 10

// With the kernel's default buffer, libutp loses most of a burst and waits a second to repeat it.
const SOCKET_BUFFER_BYTES = 4 * 1024 * 1024

function widen (socket) {
  socket.setRecvBufferSize(SOCKET_BUFFER_BYTES)
  socket.setSendBufferSize(SOCKET_BUFFER_BYTES)
}

function say (words) {
  process.stdout.write(JSON.stringify(words) + '\n')
}

// The monotonic clock, which all processes share.
function monotonic () {
  return Number(process.hrtime.bigint()) / 1e9
}

function cpuSeconds () {
  const usage = process.cpuUsage()
  return (usage.user + usage.system) / 1e6
}

class Tally {
  constructor (order) {
    this.zero = order.zero
    this.start = order.zero + order.start_s
    this.end = order.zero + order.end_s
    this.bins = new Array(Math.round(order.end_s * BINS_PER_SECOND) + 1).fill(0)
    this.cpuBegan = cpuSeconds()
    this.at(this.start, () => { this.cpuBegan = cpuSeconds() })
    this.at(this.end, () => {
      const share = (cpuSeconds() - this.cpuBegan) / (this.end - this.start)
      process.stdout.write(JSON.stringify({ bins: this.bins, cpu_share: share }) + '\n', () => {
        process.exit(0)
      })
    })
  }

  at (moment, action) {
    setTimeout(action, Math.max(moment - monotonic(), 0) * 1000)
  }

  add (count) {
    const index = Math.floor((monotonic() - this.zero) * BINS_PER_SECOND)
    if (index >= 0 && index < this.bins.length) this.bins[index] += count
  }
}

function whenTold (action) {
  readline.createInterface({ input: process.stdin }).once('line', (line) => action(new Tally(JSON.parse(line))))
  say({ ready: true })
}

function receive (host, port) {
  let tally = null
  const server = utp.createServer((stream) => {
    stream.on('data', (data) => { if (tally !== null) tally.add(data.length) })
    stream.on('error', () => {})
  })
  server.listen(port, host, () => {
    widen(server)
    whenTold((told) => { tally = told })
  })
}

function send (host, port) {
  whenTold((tally) => tally.at(tally.start, () => {
    const socket = utp()
    socket.bind(0)
    widen(socket)
    const stream = socket.connect(port, host)
    // Each chunk when the one before it was taken. Waiting for 'drain' instead makes utp-native slower.
    const produce = () => stream.write(CHUNK, produce)
    stream.on('connect', produce)
    stream.on('data', () => {})
    stream.on('error', (error) => { throw error })
  }))
}

const [role, host, port] = process.argv.slice(2)
if (role === 'receive') {
  receive(host, Number(port))
} else {
  send(host, Number(port))
}
