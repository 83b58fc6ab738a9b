// The same as `support.py receive` and `support.py send`, over utp-native (libutp from Node.js).
//
//   node utp_native.js receive BYTES
//   node utp_native.js send BYTES PORT
//
// utp-native is the one that the interop tests use: `npm install` in tests/interop.

'use strict'

const utp = require('../tests/interop/node_modules/utp-native')

const HOST = '127.0.0.1'
const CHUNK = Buffer.alloc(64 * 1024)

// With the kernel's default buffer, libutp loses most of a burst and waits a second to repeat it.
const SOCKET_BUFFER_BYTES = 4 * 1024 * 1024

function widen (socket) {
  socket.setRecvBufferSize(SOCKET_BUFFER_BYTES)
  socket.setSendBufferSize(SOCKET_BUFFER_BYTES)
}

function cpuSeconds () {
  const usage = process.cpuUsage()
  return (usage.user + usage.system) / 1e6
}

function say (words) {
  process.stdout.write(JSON.stringify(words) + '\n')
}

function receive (totalBytes) {
  const server = utp.createServer((stream) => {
    const began = process.hrtime.bigint()
    const cpuBegan = cpuSeconds()
    let missingBytes = totalBytes
    let result = null
    stream.on('data', (data) => {
      missingBytes -= data.length
      if (missingBytes === 0) {
        result = { seconds: Number(process.hrtime.bigint() - began) / 1e9, cpu_seconds: cpuSeconds() - cpuBegan }
      }
    })
    stream.on('end', () => stream.end())
    stream.on('error', (error) => { throw error })
    stream.on('close', () => {
      say(result)
      server.close()
    })
  })
  server.listen(0, HOST, () => {
    widen(server)
    say({ port: server.address().port })
  })
}

function send (totalBytes, port) {
  const socket = utp()
  socket.bind(0, HOST)
  widen(socket)
  const stream = socket.connect(port, HOST)
  let leftBytes = totalBytes
  let cpuBegan = 0

  // Each chunk when the one before it was taken. Waiting for 'drain' instead makes utp-native slower.
  function produce () {
    if (leftBytes === 0) return stream.end()
    const data = CHUNK.subarray(0, Math.min(CHUNK.length, leftBytes))
    leftBytes -= data.length
    stream.write(data, produce)
  }

  stream.on('connect', () => {
    cpuBegan = cpuSeconds()
    produce()
  })
  stream.on('data', () => {})
  stream.on('error', (error) => { throw error })
  stream.on('close', () => {
    say({ cpu_seconds: cpuSeconds() - cpuBegan })
    socket.close()
  })
}

const [role, totalBytes, port] = process.argv.slice(2)
if (role === 'receive') {
  receive(Number(totalBytes))
} else {
  send(Number(totalBytes), Number(port))
}
