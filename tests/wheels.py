"""Wheels for the tests of packaging: fetched once for an environment, so that later runs need no network."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

FETCH_SECONDS = 300


def wheels_for(tree: Path, spare: Path) -> Path:
    """The directory with all that the package and its command depend on, and are built with.

    It is kept in the virtual environment of this Python; without a writable one it is made in ``spare``.
    """
    what = hashlib.sha256((tree / "pyproject.toml").read_bytes() + sys.version.encode()).hexdigest()[:16]
    home = Path(sys.prefix) if sys.prefix != sys.base_prefix and os.access(sys.prefix, os.W_OK) else spare
    house = home / "wheels" / what
    if not house.exists():
        shutil.rmtree(house.parent, ignore_errors=True)
        fresh = house.parent / "fetching"
        # Older versions of pip want "wheel" to build with, newer ones only setuptools.
        pip = [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--disable-pip-version-check",
            "--wheel-dir",
            str(fresh),
        ]
        subprocess.run([*pip, f"{tree}[cli]", "setuptools", "wheel"], cwd=spare, check=True, timeout=FETCH_SECONDS)
        for ours in fresh.glob("txutp-*"):
            ours.unlink()
        fresh.rename(house)
    return house


def offline_with(house: Path) -> dict[str, str]:
    """Environment variables with which pip takes wheels from this directory only."""
    return {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(house)}
