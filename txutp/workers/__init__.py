"""Several processes on one UDP port: as many workers as there are cores, each with an ordinary reactor.

``python -m txutp.workers --workers 4 --listen utp:8080 twist web --listen utp:8080 --path .`` runs any program so, in
whichever way it listens on uTP.  ``Workers`` is the service behind the command, for programs that want to start workers
themselves; ``this_worker`` tells a program which worker it is.  ``docs/howto/workers.md`` tells how it works.
"""

from txutp.workers.member import Worker, this_worker
from txutp.workers.parent import Workers, WorkersFailed
from txutp.workers.steering import why_no_steering

__all__ = ["Worker", "Workers", "WorkersFailed", "this_worker", "why_no_steering"]
