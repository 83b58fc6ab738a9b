"""uTP between us and other implementations: a matrix of peers and scenarios, and what Wireshark sees."""
