"""uTP between us and the others: libutp (through utp-native), libtorrent, and Wireshark's eyes."""
