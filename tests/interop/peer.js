// The other side of the interop tests: libutp, through utp-native, doing one simple thing.
//
//   node peer.js listen VERB [--bytes N] [--connections N] [--javascript]
//   node peer.js connect PORT VERB [--bytes N] [--connections N] [--greeting TEXT] [--javascript]
//
// VERB is what to do on each connection:
//
//   echo        send back what arrives; end when the other side has ended
//   answer      wait until the other side has ended; then send N bytes and end
//   exchange    send N bytes and end, while reading until the other side ends
//   send-close  send N bytes and close without waiting for anything
//
// With --javascript it is the package `utp` instead, an implementation of its own that knows no extensions
// and no half close. TEXT is sent before that. Whoever connects should speak first: libutp as the one who connects sends
// not a packet after the handshake until it has data, and as the one who listens cannot write before.
//
// Results are lines of JSON. {"port": P} comes first if this side listens; then, for each connection
// that has closed, what was received and sent, whether the other side ended properly, and the error.
// After N connections (1 unless told) the program ends by itself.
//
// With TXUTP_INTEROP_TRANSPORT=tcp it speaks TCP. That proves the tests themselves.

'use strict'

const { createHash, randomBytes } = require('crypto')
const { parseArgs } = require('util')

const HOST = '127.0.0.1'
const CHUNK_BYTES = 64 * 1024

// With the kernel's default buffer, libutp loses most of a burst and waits a second to repeat it.
const SOCKET_BUFFER_BYTES = 4 * 1000 * 1000

const VERBS = {
  echo (stream, tally) {
    stream.on('data', (chunk) => {
      tally.sent.add(chunk)
      stream.write(chunk)
    })
    stream.on('end', () => stream.end())
  },

  answer (stream, tally, bytes) {
    stream.on('end', () => send(stream, tally, bytes, () => stream.end()))
  },

  exchange (stream, tally, bytes) {
    send(stream, tally, bytes, () => stream.end())
  },

  'send-close' (stream, tally, bytes) {
    send(stream, tally, bytes, () => stream.destroy())
  }
}

// Writes random bytes, as fast as they are taken, and calls `done` when the last have been taken.
function send (stream, tally, bytes, done) {
  if (bytes === 0) return done()
  const chunk = randomBytes(Math.min(bytes, CHUNK_BYTES))
  tally.sent.add(chunk)
  stream.write(chunk, () => send(stream, tally, bytes - chunk.length, done))
}

class Count {
  constructor () {
    this.bytes = 0
    this.hash = createHash('sha256')
  }

  add (chunk) {
    this.bytes += chunk.length
    this.hash.update(chunk)
  }

  toJSON () {
    return { bytes: this.bytes, sha256: this.hash.copy().digest('hex') }
  }
}

function print (result) {
  process.stdout.write(JSON.stringify(result) + '\n')
}

// Keeps the books of one connection, and prints them when it has closed.
function keepBooks (stream, onclose) {
  const tally = { received: new Count(), sent: new Count(), ended: false, error: null }
  stream.on('data', (chunk) => tally.received.add(chunk))
  stream.on('end', () => { tally.ended = true })
  stream.on('error', (error) => { tally.error = error.code || error.message })
  stream.on('close', () => {
    print(tally)
    onclose()
  })
  return tally
}

function listen (transport, start, connections) {
  let left = connections
  const server = transport.createServer((stream) => {
    const tally = keepBooks(stream, () => {
      if (--left === 0) server.close()
    })
    start(stream, tally)
  })
  server.listen(0, HOST, () => {
    transport.widen(server)
    print({ port: server.address().port })
  })
}

function connect (transport, start, connections, port) {
  let left = connections
  const client = transport.createClient()
  for (let number = 0; number < connections; number++) {
    const stream = client.connect(port)
    const tally = keepBooks(stream, () => {
      if (--left === 0) client.close()
    })
    // utp-native forgets an end() that is called before 'connect'.
    stream.on('connect', () => start(stream, tally))
  }
}

const TRANSPORTS = {
  utp () {
    const utp = require('utp-native')
    const widen = (socket) => {
      socket.setRecvBufferSize(SOCKET_BUFFER_BYTES)
      socket.setSendBufferSize(SOCKET_BUFFER_BYTES)
    }
    return {
      widen,
      createServer: utp.createServer,
      createClient () {
        const socket = utp()
        socket.bind(0, HOST)
        widen(socket)
        return { connect: (port) => socket.connect(port, HOST), close: () => socket.close() }
      }
    }
  },

  javascript () {
    const utp = require('utp')
    return {
      widen () {},
      createServer (onconnection) {
        const server = utp.createServer(onconnection)
        const listen = server.listen
        server.listen = (port, host, onlistening) => listen.call(server, port, onlistening)
        return server
      },
      createClient () {
        return { connect: (port) => utp.connect(port, HOST), close () {} }
      }
    }
  },

  tcp () {
    const net = require('net')
    const allowHalfOpen = true
    return {
      widen () {},
      createServer: (onconnection) => net.createServer({ allowHalfOpen }, onconnection),
      createClient () {
        return { connect: (port) => net.connect({ port, host: HOST, allowHalfOpen }), close () {} }
      }
    }
  }
}

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: {
    bytes: { type: 'string', default: '0' },
    connections: { type: 'string', default: '1' },
    greeting: { type: 'string', default: '' },
    javascript: { type: 'boolean', default: false }
  }
})
const role = positionals[0]
const verb = VERBS[positionals[positionals.length - 1]]
const connections = Number(values.connections)
const start = (stream, tally) => {
  if (values.greeting) {
    tally.sent.add(values.greeting)
    stream.write(values.greeting)
  }
  verb(stream, tally, Number(values.bytes))
}
const transport = TRANSPORTS[values.javascript ? 'javascript' : process.env.TXUTP_INTEROP_TRANSPORT || 'utp']()

if (role === 'listen') {
  listen(transport, start, connections)
} else {
  connect(transport, start, connections, Number(positionals[1]))
}
