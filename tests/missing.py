"""Skips, with a reason, for tests that need a program which is missing, or which this user may not run."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import NoReturn

import pytest

# tests/run sets it when every program that tests need is installed: then a missing one fails the test.
ALL_IS_HERE = "TXUTP_TESTS_ALL_IS_HERE"


def leave_out(reason: str) -> NoReturn:
    """Skip the test, and say why; fail it where nothing should be missing."""
    if os.environ.get(ALL_IS_HERE):
        pytest.fail(f"{reason}, although tests/run has found everything", pytrace=False)
    pytest.skip(reason)


def need_capture(interface: str) -> None:
    """Skip the test where tshark is missing, or this user may not capture packets."""
    for program in ("tshark", "dumpcap"):
        if shutil.which(program) is None:
            # Debian lets only root and the group wireshark run dumpcap.
            if shutil.which(program, os.F_OK) is not None:
                pytest.skip(f"this user may not run {program}")
            leave_out(f"{program} is missing: install the package tshark")
    listed = subprocess.run(["dumpcap", "-L", "-i", interface], capture_output=True, text=True, check=False)
    if listed.returncode:
        problem = listed.stderr.strip().partition("\n")[0]
        pytest.skip(f"this user may not capture packets on {interface}: {problem}")
