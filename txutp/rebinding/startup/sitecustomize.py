"""Python runs this when it starts, in the child processes of ``python -m txutp.rebinding``, for it is on PYTHONPATH.

It says nothing where txutp is not installed: that Python goes on without uTP.
"""

import importlib
import importlib.util
import os
import sys
from contextlib import suppress

here = os.path.dirname(os.path.abspath(__file__))
sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != here]

if importlib.util.find_spec("txutp") is not None:
    from txutp.rebinding.inheriting import begin_as_child

    begin_as_child()

# The module of this name that would have been found otherwise, if there is one.
del sys.modules["sitecustomize"]
with suppress(ModuleNotFoundError):
    importlib.import_module("sitecustomize")
sys.modules.setdefault("sitecustomize", importlib.util.module_from_spec(__spec__))
