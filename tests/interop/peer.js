// The other side of the interop tests in JavaScript, doing one simple thing.
//
//   node peer.js listen VERB [OPTIONS]
//   node peer.js connect PORT VERB [OPTIONS]
//
// VERB is what to do on each connection:
//
//   echo        send back what arrives; end when the other side has ended
//   answer      wait until the other side has ended; then send N bytes and end
//   exchange    send N bytes and end, while reading until the other side ends
//   send-close  send N bytes and close without waiting for anything
//
// Options:
//
//   --library NAME    utp-native, which is libutp (unless told), or utp, which is JavaScript
//   --bytes N         0 unless told
//   --connections N   after so many (1 unless told) the program ends by itself
//   --greeting TEXT   is sent first. The side that connects should speak first: libutp as the client sends no packet
//                     after the handshake until it has data, and as the server it cannot write before it has read
//   --host ADDRESS    where to listen, or where the other side listens (127.0.0.1 unless told)
//   --port PORT       where to listen; a free port unless told
//   --stock-buffers   leave the buffers of the UDP socket as the system makes them
//
// Results are lines of JSON. {"port": P} comes first if this side listens; then, for each connection
// that has closed, what was received and sent, whether the other side ended properly, and the error.
//
// With TXUTP_INTEROP_TRANSPORT=tcp it speaks TCP. That proves the tests themselves.

'use strict'

const { createHash, randomBytes } = require('crypto')
const { parseArgs } = require('util')

const LOOPBACK = '127.0.0.1'
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

function listen (library, start, connections, port, host) {
  let left = connections
  const server = library.createServer((stream) => {
    const tally = keepBooks(stream, () => {
      if (--left === 0) server.close()
    })
    start(stream, tally)
  })
  library.listen(server, port, host, () => print({ port: server.address().port }))
}

function connect (library, start, connections, port, host) {
  let left = connections
  const client = library.createClient(host)
  for (let number = 0; number < connections; number++) {
    const stream = client.connect(port, host)
    const tally = keepBooks(stream, () => {
      if (--left === 0) client.close()
    })
    // utp-native forgets an end() that is called before 'connect'.
    stream.on('connect', () => start(stream, tally))
  }
}

// A client leaves from the loopback interface only if that is where it goes.
function local (host) {
  return host === LOOPBACK ? LOOPBACK : '0.0.0.0'
}

const LIBRARIES = {
  'utp-native' () {
    const utp = require('utp-native')
    const widen = (socket) => {
      if (values['stock-buffers']) return
      socket.setRecvBufferSize(SOCKET_BUFFER_BYTES)
      socket.setSendBufferSize(SOCKET_BUFFER_BYTES)
    }
    return {
      createServer: utp.createServer,
      listen (server, port, host, done) {
        server.listen(port, host, () => {
          widen(server)
          done()
        })
      },
      createClient (host) {
        const socket = utp()
        socket.bind(0, local(host))
        widen(socket)
        return { connect: (port, host) => socket.connect(port, host), close: () => socket.close() }
      }
    }
  },

  utp () {
    const dgram = require('dgram')
    const utp = require('utp')
    const widen = (socket) => {
      if (values['stock-buffers']) return
      socket.setRecvBufferSize(SOCKET_BUFFER_BYTES)
      socket.setSendBufferSize(SOCKET_BUFFER_BYTES)
    }
    return {
      createServer: utp.createServer,
      listen (server, port, host, done) {
        const socket = dgram.createSocket('udp4')
        server.listen(socket, () => {
          widen(socket)
          done()
        })
        socket.bind(port, host)
      },
      createClient () {
        return {
          connect (port, host) {
            const stream = utp.connect(port, host)
            stream.socket.on('listening', () => widen(stream.socket))
            return stream
          },
          // Each connection has a socket of its own, and closes it.
          close () {}
        }
      }
    }
  },

  tcp () {
    const net = require('net')
    const allowHalfOpen = true
    return {
      createServer: (onconnection) => net.createServer({ allowHalfOpen }, onconnection),
      listen: (server, port, host, done) => server.listen(port, host, done),
      createClient () {
        return { connect: (port, host) => net.connect({ port, host, allowHalfOpen }), close () {} }
      }
    }
  }
}

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: {
    library: { type: 'string', default: 'utp-native' },
    bytes: { type: 'string', default: '0' },
    connections: { type: 'string', default: '1' },
    greeting: { type: 'string', default: '' },
    host: { type: 'string', default: LOOPBACK },
    port: { type: 'string', default: '0' },
    'stock-buffers': { type: 'boolean', default: false }
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
const overTCP = process.env.TXUTP_INTEROP_TRANSPORT === 'tcp'
const library = LIBRARIES[overTCP ? 'tcp' : values.library]()

if (role === 'listen') {
  listen(library, start, connections, Number(values.port), values.host)
} else {
  connect(library, start, connections, Number(positionals[1]), values.host)
}
