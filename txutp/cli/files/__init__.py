"""What ``txutp send`` and ``txutp receive`` do: files that are sent, resumed, compared by hash, and put in their place.

``docs/reference/files.md`` describes the protocol.
"""
