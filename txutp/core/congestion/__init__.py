"""Congestion control: how much of a stream may be in flight, and how fast it leaves.

``interface.py`` states what a controller offers and is told, and ``steering.py`` tells it.  The controllers are
``shallow.py``, ``ledbat.py`` and ``ledbatpp.py``; ``controllers.py`` has their names.  ``capacity.py`` and
``overload.py`` read from losses what delays do not announce: short queues and policers.
"""

# Programs may import these from here; "as" tells type checkers that the names are meant to be found.
from txutp.core.congestion.interface import Acknowledgement as Acknowledgement
from txutp.core.congestion.interface import Controller as Controller
from txutp.core.congestion.interface import ControllerFactory as ControllerFactory
