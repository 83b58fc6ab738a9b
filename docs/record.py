"""Records what the graph of a crowded line shows: ``python docs/record.py`` writes ``docs/data/crowded-line.json``.

A simulated uplink of 10 Mbit/s, with round trips of 50 ms and a queue that holds 250 packets.  A background upload runs
for 60 s, over TCP or over txutp.  From 20 to 40 s somebody else uploads over TCP.  Both TCPs are CUBIC.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from benchmarks.scenarios.definitions import UTP, Flow, Queue, Scenario  # noqa: E402
from benchmarks.scenarios.definitions import Path as Line  # noqa: E402
from benchmarks.scenarios.measure import rate_megabits  # noqa: E402
from benchmarks.scenarios.running import run  # noqa: E402

DATA = HERE / "data" / "crowded-line.json"
LINE = Line(megabits=10, delay_ms=25, queue=Queue(packets=250))
SECONDS = 60
OTHERS = Flow("cubic", start_s=20, stop_s=40)
STEP_SECONDS = 0.5
SEED = 1


def recorded(background: str) -> dict[str, list[float]]:
    """Returns the longest wait in the queue, and the rates of both uploads, in each step of time."""
    scenario = Scenario("crowded-line", "", LINE, (Flow(background), OTHERS), SECONDS)
    numbers = run(scenario, "shallow", SEED)
    samples = round(STEP_SECONDS * 1_000_000 / numbers.sample_us)
    starts = [step * STEP_SECONDS for step in range(round(SECONDS / STEP_SECONDS))]
    waits_ms = [max(numbers.queue_ms[step * samples : (step + 1) * samples]) for step in range(len(starts))]
    series = {"queue_ms": [round(wait_ms, 1) for wait_ms in waits_ms]}
    for name, flow in zip(("background_megabits", "others_megabits"), numbers.flows, strict=True):
        series[name] = [round(rate_megabits(flow.bins, start, start + STEP_SECONDS), 2) for start in starts]
    return series


def record() -> str:
    """Returns the text of the file."""
    runs = {"TCP": recorded("cubic"), "txutp": recorded(UTP)}
    return json.dumps({"step_s": STEP_SECONDS, "runs": runs}, separators=(",", ":")).replace("],", "],\n") + "\n"


if __name__ == "__main__":
    DATA.parent.mkdir(exist_ok=True)
    DATA.write_text(record(), encoding="utf-8")
