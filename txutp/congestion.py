"""Congestion controllers: those that come with txutp, and what a new one has to offer and is told.

A controller is one class with the members of ``Controller``, used as ``Settings(congestion=ThatClass)``.
"""

from txutp.core.congestion import Acknowledgement, Controller, ControllerFactory
from txutp.core.controllers import CONTROLLERS
from txutp.core.ledbat import Ledbat
from txutp.core.ledbatpp import LedbatPlusPlus
from txutp.core.rtt import RoundTrip
from txutp.core.shallow import Shallow

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
