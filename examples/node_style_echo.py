"""An echo server and its client, as a Node.js programmer would write them; it ends when both have closed."""

from txutp.socket import connect, createServer, run

server = createServer(lambda socket: socket.pipe(socket))
server.on("close", lambda: print("server closed"))


@server.on("listening")
def begin():
    client = connect(server.address().port, "127.0.0.1")
    client.setEncoding("utf8")
    client.end("Hello over uTP!", callback=lambda: server.close())

    @client.on("data")
    def show(text):
        print("echo:", text)


server.listen(0, "127.0.0.1")
run()
