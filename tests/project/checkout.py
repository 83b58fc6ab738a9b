"""Which files belong to the checkout."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


def files_of_checkout() -> list[Path]:
    """The files that are in the repository or about to be; skips the test if git cannot tell."""
    if shutil.which("git") is None:
        pytest.skip("git is missing: nobody knows which files belong to the repository")
    listing = subprocess.run(
        # A clone made by another user is still ours to read.
        ["git", "-c", "safe.directory=*", "ls-files", "-z", "-co", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if listing.returncode:
        pytest.skip("not a git checkout: nobody knows which files belong to it")
    return [ROOT / name for name in listing.stdout.decode().split("\0") if (ROOT / name).is_file()]
