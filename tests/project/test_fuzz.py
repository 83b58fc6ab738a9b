"""The fuzzers: their corpus holds what it promises, and a minute of coverage-guided fuzzing finds nothing."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.seeds import CORPUS, seeds
from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = (ROOT / "docs" / "notebook" / "fuzzing.md").read_text(encoding="utf-8")
SECONDS_EACH = 20
SECONDS_PLAIN = 3


def fuzz(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the command to its end."""
    command = [sys.executable, "-m", "tests.fuzz", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS_EACH + 200, check=False)


@pytest.mark.parametrize("target", TARGETS)
def test_the_corpus_breaks_nothing(target: str) -> None:
    """Each story and datagram of the corpus, with and without an end that is cut off."""
    files = sorted((CORPUS / target).iterdir())

    assert files
    for path in files:
        data = path.read_bytes()
        for story in (data, data[: len(data) // 2]):
            TARGETS[target](story)


def test_the_corpus_is_what_its_script_writes() -> None:
    """Seeds are made, not found; what a fuzzer found stands beside them."""
    for name, data in seeds().items():
        assert (CORPUS / name).read_bytes() == data, name


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_random_mutations_find_nothing(target: str, tmp_path: Path) -> None:
    """Without atheris, on every Python; the seed is always the same."""
    done = fuzz(target, "--plain", "--seconds", str(SECONDS_PLAIN), "--findings", str(tmp_path))

    assert done.returncode == 0, done.stderr
    assert "runs without a finding" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_guided_fuzzing_finds_nothing(target: str, tmp_path: Path) -> None:
    """Atheris looks for stories that reach new code; a finding is a file that replays it."""
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("atheris is not here: there is no wheel of it for this system or Python")

    done = fuzz(target, "--seconds", str(SECONDS_EACH), "--findings", str(tmp_path))

    assert done.returncode == 0, done.stdout[-3_000:] + done.stderr[-3_000:]
    assert "stat::number_of_executed_units" in done.stdout + done.stderr


def test_a_story_that_breaks_something_is_kept_and_replayed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file that is written fails again, alone."""
    from tests.fuzz import __main__ as command

    def broken(data: bytes) -> None:
        assert len(data) < 200

    monkeypatch.setitem(command.TARGETS, "parser", broken)
    with pytest.raises(AssertionError):
        command.mutate("parser", 60, 1, tmp_path)

    (finding,) = tmp_path.iterdir()
    with pytest.raises(AssertionError):
        broken(finding.read_bytes())


@pytest.mark.slow
def test_the_commands_of_the_page_run(tmp_path: Path) -> None:
    """Each for a second in the place of minutes; files are those of the corpus."""
    commands = [line for line in PAGE.splitlines() if line.startswith("python -m tests.fuzz ")]

    assert len(commands) == 3
    for line in commands:
        words = line.split()[3:]
        if "--seconds" in words:
            words = [words[0], "--plain", "--seconds", "1", "--findings", str(tmp_path)]
        elif len(words) > 1:
            words = [words[0], str(CORPUS / "port" / "story-00")]
        else:
            continue  # writing the corpus is tested above
        assert fuzz(*words).returncode == 0, line
