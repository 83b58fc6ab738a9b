"""Twisted's own tests of stream transports, bound to uTP. They run under trial: see suite.py."""
