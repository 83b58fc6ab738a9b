"""Congestion controllers: those that come with txutp, and what a new one has to offer and is told.

A controller is one class with the members of ``Controller``, used as ``Settings(congestion=ThatClass)``.
"""

from txutp.core.congestion.controllers import CONTROLLERS
from txutp.core.congestion.interface import Acknowledgement, Controller, ControllerFactory
from txutp.core.congestion.ledbat import Ledbat
from txutp.core.congestion.ledbatpp import LedbatPlusPlus
from txutp.core.congestion.shallow import Shallow
from txutp.core.rtt import RoundTrip

__all__ = [
    "CONTROLLERS",
    "Acknowledgement",
    "Controller",
    "ControllerFactory",
    "Ledbat",
    "LedbatPlusPlus",
    "RoundTrip",
    "Shallow",
]
