"""The congestion controllers that come with us, by the names that people type."""

from __future__ import annotations

from txutp.core.congestion import ControllerFactory
from txutp.core.ledbat import Ledbat
from txutp.core.ledbatpp import LedbatPlusPlus
from txutp.core.shallow import Shallow

CONTROLLERS: dict[str, ControllerFactory] = {
    "ledbat": Ledbat,
    "ledbat++": LedbatPlusPlus,
    "shallow": Shallow,
}
