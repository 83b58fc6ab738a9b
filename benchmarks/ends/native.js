// The ends of utp-native (libutp, in C, from Node.js), as the modules in Python beside this file have them.
//
//   node native.js VERB OPTIONS
//
// receive, send      one stream                          host, bytes, kernel_buffers, port
// serve              send back what comes                host
// visit              connect, one byte, close            host, port, count, at_once
// play               a message there and back            host, port, bytes, count
//
// A visit is over when its byte has come back: libutp frees a closed connection only up to half a second later.
//
// utp-native is the one that the interop tests use: `npm install` in tests/interop.

'use strict'

const utp = require('../../tests/interop/node_modules/utp-native')

const CHUNK = Buffer.alloc(64 * 1024)
const WARM_UP_SHARE = 0.1

// With the kernel's default buffer, libutp loses most of a burst and waits a second to repeat it.  "stock" asks for
// what a kernel as it comes would grant, "unasked" asks for nothing.
const KERNEL_BUFFER_BYTES = { large: 4 * 1024 * 1024, stock: 212992 }

function widen (socket, options) {
  const bytes = KERNEL_BUFFER_BYTES[options.kernel_buffers || 'large']
  if (bytes) {
    socket.setRecvBufferSize(bytes)
    socket.setSendBufferSize(bytes)
  }
}

function cpuSeconds () {
  const usage = process.cpuUsage()
  return (usage.user + usage.system) / 1e6
}

function stopwatch () {
  const began = process.hrtime.bigint()
  const cpuBegan = cpuSeconds()
  return () => ({ seconds: Number(process.hrtime.bigint() - began) / 1e9, cpu_seconds: cpuSeconds() - cpuBegan })
}

function say (words) {
  process.stdout.write(JSON.stringify(words) + '\n')
}

function listen (options, onstream) {
  const server = utp.createServer((stream) => {
    stream.on('error', (error) => { throw error })
    onstream(stream, server)
  })
  server.listen(0, options.host, () => {
    widen(server, options)
    say({ port: server.address().port })
  })
}

function client (options) {
  const socket = utp()
  socket.bind(0)
  widen(socket, options)
  return socket
}

function receive (options) {
  listen(options, (stream, server) => {
    const read = stopwatch()
    let missingBytes = options.bytes
    let result = null
    stream.on('data', (data) => {
      missingBytes -= data.length
      if (missingBytes === 0) result = { ...read(), granted_receive_bytes: server.getRecvBufferSize() }
    })
    stream.on('end', () => stream.end())
    stream.on('close', () => {
      say(result)
      server.close()
    })
  })
}

function send (options) {
  const socket = client(options)
  const stream = socket.connect(options.port, options.host)
  let leftBytes = options.bytes
  let read = null

  // Each chunk when the one before it was taken. Waiting for 'drain' instead makes utp-native slower.
  function produce () {
    if (leftBytes === 0) return stream.end()
    const data = CHUNK.subarray(0, Math.min(CHUNK.length, leftBytes))
    leftBytes -= data.length
    stream.write(data, produce)
  }

  stream.on('connect', () => {
    read = stopwatch()
    produce()
  })
  stream.on('data', () => {})
  stream.on('error', (error) => { throw error })
  stream.on('close', () => {
    say(read())
    socket.close()
  })
}

function serve (options) {
  listen(options, (stream) => {
    stream.on('data', (data) => stream.write(data))
    stream.on('end', () => stream.end())
  })
  process.stdin.on('data', () => say({ cpu_seconds: cpuSeconds() }))
}

function visit (options) {
  const socket = client(options)
  const warmUp = Math.floor(options.count * (1 - WARM_UP_SHARE))
  let toBegin = options.count
  let toEnd = options.count
  let read = stopwatch()

  function begin () {
    toBegin--
    const stream = socket.connect(options.port, options.host)
    stream.on('connect', () => stream.write(Buffer.from('x')))
    stream.on('error', (error) => { throw error })
    stream.once('data', () => {
      stream.end()
      if (--toEnd === warmUp) read = stopwatch()
      if (toBegin) begin()
      else if (toEnd === 0) {
        say({ ...read(), visits: warmUp })
        process.exit()
      }
    })
  }

  for (let number = 0; number < Math.min(options.at_once, options.count); number++) begin()
}

function play (options) {
  const socket = client(options)
  const stream = socket.connect(options.port, options.host)
  const message = Buffer.alloc(options.bytes)
  const took = []
  let missingBytes = 0
  let sent = 0n

  function next () {
    missingBytes = message.length
    sent = process.hrtime.bigint()
    stream.write(message)
  }

  stream.on('connect', next)
  stream.on('error', (error) => { throw error })
  stream.on('data', (data) => {
    missingBytes -= data.length
    if (missingBytes) return
    took.push(Number(process.hrtime.bigint() - sent) / 1e3)
    if (took.length < options.count) return next()
    const sorted = took.slice(Math.floor(took.length * WARM_UP_SHARE)).sort((a, b) => a - b)
    say({ p50_us: sorted[Math.floor(sorted.length / 2)], p99_us: sorted[Math.floor(sorted.length * 0.99)] })
    process.exit()
  })
}

const [verb, options] = process.argv.slice(2)
const verbs = { receive, send, serve, visit, play }
verbs[verb](JSON.parse(options))
