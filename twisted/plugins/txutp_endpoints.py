"""The endpoint strings ``utp:...`` and ``utp+tcp:...`` for Twisted.  Keep this small: every program loads it."""

from txutp.endpoints import UTPClientParser, UTPServerParser
from txutp.racing import UTPAndTCPServerParser, UTPOrTCPClientParser

utp_server_parser = UTPServerParser()
utp_client_parser = UTPClientParser()
utp_and_tcp_server_parser = UTPAndTCPServerParser()
utp_or_tcp_client_parser = UTPOrTCPClientParser()
