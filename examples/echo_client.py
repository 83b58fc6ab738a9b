from twisted.internet import defer, endpoints, protocol, task


@task.react
async def main(reactor):
    client, answer = protocol.Protocol(), defer.Deferred()
    client.dataReceived = answer.callback
    endpoint = endpoints.clientFromString(reactor, "utp:127.0.0.1:6881")
    await endpoints.connectProtocol(endpoint, client)
    client.transport.write(b"Hello over uTP!")
    print((await answer).decode())
    client.transport.loseConnection()
