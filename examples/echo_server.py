from twisted.internet import defer, endpoints, protocol, task


class Echo(protocol.Protocol):
    def dataReceived(self, data):
        self.transport.write(data)


@task.react
async def main(reactor):
    endpoint = endpoints.serverFromString(reactor, "utp:6881:interface=127.0.0.1")
    await endpoint.listen(protocol.Factory.forProtocol(Echo))
    await defer.Deferred()
