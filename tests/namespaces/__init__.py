"""Tests on real interfaces: network namespaces joined by virtual cables.  They need root on Linux."""
