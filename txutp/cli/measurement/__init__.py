"""What ``txutp perf`` consists of: a protocol between two ends, streams of data, results, and ways to show them.

``ends.py`` runs a test at either end, ``results.py`` joins what both ends saw, ``report.py``, ``live.py`` and
``plot.py`` show it.
"""
