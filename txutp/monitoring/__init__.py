"""How the uTP connections of a program are doing, seen from outside while it runs.

::

    openControlSocket("/run/service/utp.sock")        # for ``txutp top /run/service/utp.sock``
    site.putChild(b"metrics", MetricsResource())      # for Prometheus

Both cost nothing as long as nobody asks.  ``docs/howto/monitoring.md`` shows the screen and the metrics.
"""

from txutp.monitoring.control import ControlSocketService, openControlSocket
from txutp.monitoring.metrics import MetricsResource

__all__ = ["ControlSocketService", "MetricsResource", "openControlSocket"]
