"""The endpoint strings ``utp:...`` for Twisted. Keep this small: every program loads it."""

from txutp.endpoints import UTPClientParser, UTPServerParser

utp_server_parser = UTPServerParser()
utp_client_parser = UTPClientParser()
