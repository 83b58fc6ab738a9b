"""``python -m tests.fuzz TARGET``: fuzz one target, guided by coverage where atheris is, else with random mutations.

A story that breaks something is written to a file, which replays it: ``python -m tests.fuzz TARGET FILE``.
"""

from __future__ import annotations

import hashlib
import random
import sys
import time
from pathlib import Path

import click

from tests.fuzz import seeds
from tests.fuzz.targets import TARGETS

MAXIMUM_BYTES = 3_000


@click.command()
@click.argument("target", type=click.Choice([*TARGETS, "seeds"]))
@click.argument("files", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--seconds", type=click.IntRange(min=1), default=60, show_default=True, help="How long to fuzz.")
@click.option("--seed", type=int, default=1, show_default=True, help="Of the mutations.")
@click.option("--plain", is_flag=True, help="Random mutations although atheris is installed.")
@click.option(
    "--findings", type=click.Path(path_type=Path), default=Path(), help="Where to write what breaks something."
)
def main(target: str, files: tuple[Path, ...], seconds: int, seed: int, plain: bool, findings: Path) -> None:
    """Fuzz a TARGET, or replay FILES; `seeds` writes the corpus anew."""
    if target == "seeds":
        seeds.write()
    elif files:
        for path in files:
            TARGETS[target](path.read_bytes())
    elif plain or not guided(target, seconds, seed, findings):
        mutate(target, seconds, seed, findings)


def guided(target: str, seconds: int, seed: int, findings: Path) -> bool:
    """Fuzz with atheris, which ends the process; returns False if it is not installed."""
    try:
        import atheris
    except ImportError:
        return False
    for name in [name for name in sys.modules if name.startswith("txutp") or name == "tests.fuzz.targets"]:
        del sys.modules[name]  # they are imported again, with counters
    with atheris.instrument_imports(include=["txutp.core", "txutp.protocol", "txutp.udp.outbox", "txutp.transport"]):
        from tests.fuzz.targets import TARGETS as counted
    options = [f"-max_total_time={seconds}", f"-seed={seed}", f"-max_len={MAXIMUM_BYTES}", "-timeout=60"]
    options += [f"-artifact_prefix={findings}/{target}-", "-print_final_stats=1"]
    working = findings / f"{target}-corpus"  # what covers more is added here, not to the seeds
    working.mkdir(parents=True, exist_ok=True)
    atheris.Setup([sys.argv[0], *options, str(working), str(seeds.CORPUS / target)], counted[target])
    atheris.Fuzz()
    return True


def mutate(target: str, seconds: int, seed: int, findings: Path) -> None:
    """Replay the corpus, then stories made of its pieces and of random bytes."""
    corpus = [path.read_bytes() for path in sorted((seeds.CORPUS / target).iterdir())]
    draw = random.Random(seed)
    ends = time.monotonic() + seconds
    runs = 0
    while runs < len(corpus) or time.monotonic() < ends:
        data = corpus[runs] if runs < len(corpus) else mutated(draw, corpus)
        try:
            TARGETS[target](data)
        except BaseException:
            path = findings / f"{target}-{hashlib.sha256(data).hexdigest()[:16]}"
            path.write_bytes(data)
            click.echo(f"Found: {path}", err=True)
            raise
        runs += 1
    click.echo(f"{target}: {runs} runs without a finding.")


def mutated(draw: random.Random, corpus: list[bytes]) -> bytes:
    """Returns pieces of seeds and random bytes in a new order, with some bytes changed."""
    data = bytearray()
    for _ in range(draw.randint(1, 4)):
        source = draw.choice(corpus) if draw.random() < 0.6 else draw.randbytes(draw.choice([4, 40, 400]))
        start = draw.randrange(len(source) + 1)
        data += source[start if draw.random() < 0.5 else 0 :][: draw.randint(1, MAXIMUM_BYTES // 2)]
    for _ in range(draw.randrange(8)):
        if data:
            data[draw.randrange(len(data))] = draw.choice([0, 1, 0x7F, 0x80, 0xFF, draw.randrange(256)])
    return bytes(data[:MAXIMUM_BYTES])


if __name__ == "__main__":
    main()
