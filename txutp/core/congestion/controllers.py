"""The congestion controllers that come with us, by the names that people type."""

from __future__ import annotations

from txutp.core.congestion.interface import ControllerFactory
from txutp.core.congestion.ledbat import Ledbat
from txutp.core.congestion.ledbatpp import LedbatPlusPlus
from txutp.core.congestion.shallow import Shallow

CONTROLLERS: dict[str, ControllerFactory] = {
    "ledbat": Ledbat,
    "ledbat++": LedbatPlusPlus,
    "shallow": Shallow,
}
