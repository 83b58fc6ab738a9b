"""A twistd service that listens on uTP.

    twistd --nodaemon --python examples/service.tac

PORT and INTERFACE of the environment say where, 6881 on all addresses if they do not.
"""

from os import environ

from twisted.application.internet import StreamServerEndpointService
from twisted.application.service import Application
from twisted.internet import reactor
from twisted.internet.endpoints import quoteStringArgument, serverFromString
from twisted.internet.protocol import Factory
from twisted.protocols.wire import Echo

interface = quoteStringArgument(environ.get("INTERFACE", ""))
endpoint = serverFromString(reactor, f"utp:{environ.get('PORT', '6881')}:interface={interface}")
application = Application("echo")
service = StreamServerEndpointService(endpoint, Factory.forProtocol(Echo))
service.setServiceParent(application)
