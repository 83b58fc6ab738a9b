// The other side of the matrix of peers for KTorrent: its own uTP, without BitTorrent, doing one simple thing.
//
//   ktorrent_peer listen VERB [OPTIONS]
//   ktorrent_peer connect PORT VERB [OPTIONS]
//
// Verbs, options and lines of JSON are those of peer.js; its buffers are always those that the system makes.
// clients.py builds it, with the Debian packages g++, pkg-config and libktorrent-dev.
//
// The library has no half close: after the other side's end nothing can be sent any more.  So there is one more option:
//
//   --expect N   the connection is closed when all has been sent and N bytes have been received

#include <QCoreApplication>
#include <QCryptographicHash>
#include <QString>
#include <QTimer>

#include <cstdio>
#include <cstdlib>
#include <deque>
#include <memory>
#include <unistd.h>
#include <vector>

#include <net/address.h>
#include <net/socket.h>
#include <util/log.h>
#include <utp/connection.h>
#include <utp/utpserver.h>

namespace {

const int POLL_MILLISECONDS = 2;
const int LINGER_MILLISECONDS = 1000;
const int CHUNK_BYTES = 16 * 1024;
const int MAXIMUM_QUEUE_BYTES = 1024 * 1024;

struct Options {
  QString role, verb, greeting, host = QStringLiteral("127.0.0.1");
  int port = 0;
  long long bytes = 0, expected = -1;
  int connections = 1;
};

class Count {
 public:
  void add(const QByteArray &data) {
    bytes += data.size();
    hash.addData(data);
  }
  long long total() const { return bytes; }
  QByteArray json() const {
    return "{\"bytes\":" + QByteArray::number(bytes) + ",\"sha256\":\"" + hash.result().toHex() + "\"}";
  }

 private:
  long long bytes = 0;
  QCryptographicHash hash{QCryptographicHash::Sha256};
};

class Talker {
 public:
  Talker(utp::Connection::Ptr connection, const Options &options)
      : connection(connection), options(options), left(options.bytes) {
    if (!options.greeting.isEmpty()) queue += options.greeting.toUtf8();
  }

  // Does what can be done now; returns whether the connection has ended.
  bool turn() {
    read();
    write();
    const bool closed = connection->connectionState() == utp::CS_CLOSED;
    if (closed && !connection->bytesAvailable()) {
      std::printf("{\"received\":%s,\"sent\":%s,\"ended\":%s,\"error\":%s}\n", received.json().constData(),
                  sent.json().constData(), ended ? "true" : "false", ended || closing ? "null" : "\"closed\"");
      std::fflush(stdout);
      return true;
    }
    return false;
  }

 private:
  void read() {
    // Reading from an empty window is an error of the library.
    while (connection->bytesAvailable() && queue.size() < MAXIMUM_QUEUE_BYTES) {
      QByteArray data(CHUNK_BYTES, Qt::Uninitialized);
      const int length = connection->recv(reinterpret_cast<bt::Uint8 *>(data.data()), data.size());
      if (length <= 0) break;
      data.truncate(length);
      received.add(data);
      if (options.verb == QLatin1String("echo")) queue += data;
    }
    const utp::ConnectionState state = connection->connectionState();
    if (!connection->bytesAvailable() && (state == utp::CS_FINISHED || state == utp::CS_CLOSED)) ended = true;
  }

  void write() {
    const bool sends = options.verb == QLatin1String("exchange") || options.verb == QLatin1String("send-close") ||
                       (options.verb == QLatin1String("answer") && ended);
    while (sends && left && queue.size() < CHUNK_BYTES) {
      QByteArray data(static_cast<int>(qMin<long long>(left, CHUNK_BYTES)), Qt::Uninitialized);
      for (char &byte : data) byte = static_cast<char>(std::rand());
      left -= data.size();
      queue += data;
    }
    while (!queue.isEmpty() && connection->isWriteable()) {
      const int length = connection->send(reinterpret_cast<const bt::Uint8 *>(queue.constData()),
                                          qMin(queue.size(), CHUNK_BYTES));
      if (length <= 0) break;
      sent.add(queue.left(length));
      queue.remove(0, length);
    }
    const bool has_said_all = queue.isEmpty() && (left == 0 || !sends);
    const bool has_heard_all = options.expected >= 0 && received.total() >= options.expected;
    const bool may_close = options.verb == QLatin1String("send-close") || ended || has_heard_all;
    if (has_said_all && may_close && !closing) {
      closing = true;
      connection->close();
    }
  }

  utp::Connection::Ptr connection;
  const Options &options;
  long long left;
  QByteArray queue;
  Count received, sent;
  bool ended = false, closing = false;
};

class Side : public utp::UTPServer {
 public:
  explicit Side(const Options &options) : options(options), left(options.connections) {
    setCreateSockets(false);
  }

  void begin() {
    const bool listens = options.role == QLatin1String("listen");
    // Each of its sockets would take a port of its own for 0.
    for (int attempt = 0; attempt < 100; ++attempt) {
      const int port = options.port && listens ? options.port : 20000 + std::rand() % 12000;
      if (changePort(port)) {
        start();
        if (listens) std::printf("{\"port\":%d}\n", port);
        std::fflush(stdout);
        break;
      }
    }
    if (!listens) {
      for (int number = 0; number < options.connections; ++number) {
        pending.push_back(connectTo(net::Address(options.host, options.port)).toStrongRef());
      }
    }
    QObject::connect(&timer, &QTimer::timeout, [this] { turn(); });
    timer.start(POLL_MILLISECONDS);
  }

 private:
  void turn() {
    for (;;) {
      utp::Connection::Ptr connection = acceptedConnection().toStrongRef();
      if (!connection) break;
      talkers.push_back(std::make_unique<Talker>(connection, options));
    }
    for (auto place = pending.begin(); place != pending.end();) {
      const utp::ConnectionState state = (*place)->connectionState();
      if (state == utp::CS_CONNECTED || state == utp::CS_FINISHED) {
        talkers.push_back(std::make_unique<Talker>(*place, options));
        place = pending.erase(place);
      } else if (state == utp::CS_CLOSED) {
        std::printf("{\"error\":\"not connected\"}\n");
        std::fflush(stdout);
        --left;
        place = pending.erase(place);
      } else {
        ++place;
      }
    }
    for (auto place = talkers.begin(); place != talkers.end();) {
      if ((*place)->turn()) {
        --left;
        place = talkers.erase(place);
      } else {
        ++place;
      }
    }
    if (left <= 0 && !leaving) {
      leaving = true;
      // Its last packets need a moment, and the library's threads do not survive its destructors.
      QTimer::singleShot(LINGER_MILLISECONDS, [] { std::_Exit(0); });
    }
  }

  const Options &options;
  int left;
  bool leaving = false;
  QTimer timer;
  std::deque<utp::Connection::Ptr> pending;
  std::deque<std::unique_ptr<Talker>> talkers;
};

}  // namespace

int main(int argc, char **argv) {
  QCoreApplication application(argc, argv);
  Options options;
  std::vector<QString> words;
  for (int index = 1; index < argc; ++index) {
    const QString word = QString::fromLocal8Bit(argv[index]);
    if (!word.startsWith(QLatin1String("--"))) {
      words.push_back(word);
      continue;
    }
    if (word == QLatin1String("--stock-buffers")) continue;  // it has no others
    const QString value = QString::fromLocal8Bit(argv[++index]);
    if (word == QLatin1String("--bytes")) options.bytes = value.toLongLong();
    if (word == QLatin1String("--expect")) options.expected = value.toLongLong();
    if (word == QLatin1String("--connections")) options.connections = value.toInt();
    if (word == QLatin1String("--greeting")) options.greeting = value;
    if (word == QLatin1String("--host")) options.host = value;
    if (word == QLatin1String("--port")) options.port = value.toInt();
  }
  options.role = words.front();
  options.verb = words.back();
  if (options.role == QLatin1String("connect")) options.port = words[1].toInt();
  std::srand(static_cast<unsigned>(getpid()));
  Side side(options);
  side.begin();
  return application.exec();
}
