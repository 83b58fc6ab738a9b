"""The services ``utp-forward`` and ``utp-workers`` of ``twist`` and ``twistd``; their modules are imported in use."""

from twisted.application.service import ServiceMaker

utp_forward = ServiceMaker(
    "txutp forward",
    "txutp.cli.tap",
    "Carries connections from one endpoint to another, as background traffic over uTP.",
    "utp-forward",
)
utp_workers = ServiceMaker(
    "txutp workers",
    "txutp.workers.tap",
    "A service that listens on utp: strings, in several processes on one UDP port.",
    "utp-workers",
)
