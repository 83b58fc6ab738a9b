"""Who can be compared: the controllers of the library by name, libutp's, and TCP's.

``running.py`` asks for the settings of a flow, the command for the names.
"""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.scenarios.libutp import Libutp
from benchmarks.scenarios.tcp import HEADER_BYTES, SEGMENT_BYTES, WINDOWS
from txutp import Settings
from txutp.core.congestion.controllers import CONTROLLERS
from txutp.core.congestion.interface import Controller, ControllerFactory
from txutp.core.congestion.shallow import TARGET_DELAY_US

# What a flow of uTP may have.
UTP_CONTROLLERS: dict[str, ControllerFactory] = {**CONTROLLERS, "libutp": Libutp}

# It may be replaced by one of TCP, to see what that would do there.
NAMES = [*UTP_CONTROLLERS, *WINDOWS]

RECEIVE_BUFFER_BYTES = 16 << 20


@dataclass(frozen=True)
class Chosen:
    """A controller with a target of the scenario's, which may be larger than ``Settings`` accepts."""

    name: str
    target_us: int | None = None
    slow_start: bool = True

    def __call__(self, *, segment_bytes: int, target_delay_us: int | None) -> Controller:
        controller = UTP_CONTROLLERS[self.name](segment_bytes=segment_bytes, target_delay_us=self.target_us)
        if not self.slow_start and hasattr(controller, "slow_start"):
            controller.slow_start = False
        return controller


def settings(
    name: str, target_us: int | None, slow_start: bool, outstanding_packets: int | None, receiver_yields: bool
) -> Settings:
    """How a flow with this controller is set up: packets as large as those of the TCP models, and room for all."""
    more = {} if outstanding_packets is None else {"maximum_outstanding_packets": outstanding_packets}
    return Settings(
        congestion=Chosen(name, target_us, slow_start),
        maximum_datagram_bytes=SEGMENT_BYTES + HEADER_BYTES,
        receive_buffer_bytes=RECEIVE_BUFFER_BYTES,
        receive_target_delay_us=TARGET_DELAY_US if receiver_yields else None,
        **more,
    )
