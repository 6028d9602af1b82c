"""What a person sees while something runs: a bar on a terminal, lines in a log."""

from __future__ import annotations

import io
import re
import sys
from types import SimpleNamespace

import pytest

from nimare_dask.cli import console
from nimare_dask.cli.console import Pace, progress, say_rate


class Clock:
    """A clock that stands where a test puts it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(console, "time", SimpleNamespace(monotonic=clock.monotonic))
    return clock


def lines(
    clock: Clock, capsys: pytest.CaptureFixture[str], *reports: tuple[float, int, int]
) -> list[str]:
    """What is logged of reports: seconds since the last one, done, total."""
    with progress("Null", "iterations") as report:
        for seconds, done, total in reports:
            clock.now += seconds
            report(done, total)
    return capsys.readouterr().err.splitlines()


@pytest.mark.parametrize(
    ("rate", "said"),
    [
        (152.4, "152 iterations a second"),
        (12345.6, "12,346 iterations a second"),
        (1.234, "1.2 iterations a second"),
        (0.0131, "0.013 iterations a second"),
    ],
)
def test_say_rate__is_for_people(rate: float, said: str) -> None:
    assert say_rate(rate, "iterations") == said


def test_log__rate_and_remaining_time(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    assert lines(clock, capsys, (60, 0, 10_000), (1, 9, 10_000), (19, 3040, 10_000)) == [
        "Null: 3,040 of 10,000 iterations in 20 s, 152 iterations a second, about 46 s left"
    ]  # the minute before the first report is not the iterations'


def test_log__what_was_done_before_does_not_count(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    found = lines(clock, capsys, (5, 9000, 10_000), (20, 9200, 10_000), (80, 10_000, 10_000))
    assert found == [
        "Null: 9,000 of 10,000 iterations were done before.",
        "Null: 9,200 of 10,000 iterations in 20 s, 10 iterations a second, about 80 s left",
        "Null: 10,000 of 10,000 iterations in 2 min, 10 iterations a second",
    ]


def test_log__all_was_done_before(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    found = lines(clock, capsys, (1, 30, 30), (1, 30, 30))
    assert found == ["Null: 30 of 30 iterations were done before."]


def test_log__the_next_file_begins_anew(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    found = lines(clock, capsys, (0, 0, 500), (1, 500, 500), (9, 700, 800), (5, 800, 800))
    assert found == [
        "Null: 500 of 500 iterations in 1 s, 500 iterations a second",
        "Null: 700 of 800 iterations were done before.",
        "Null: 800 of 800 iterations in 5 s, 20 iterations a second",
    ]


def test_bar__rate_and_remaining_time(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = Terminal()
    monkeypatch.setattr(sys, "stderr", shown)
    for name, value in {"COLUMNS": "150", "TERM": "xterm", "NO_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    with progress("Null", "iterations") as report:
        clock.now += 60
        report(9000, 10_000)
        clock.now += 20
        report(9200, 10_000)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.getvalue())
    last = text.replace("\r", "\n").strip().splitlines()[-1]
    assert last.startswith("Null ━")
    assert "9200/10000 iterations" in last
    assert last.rstrip().endswith("10 iterations a second, about 80 s left")


def test_pace__is_not_known_at_once(clock: Clock) -> None:
    pace = Pace("blocks")
    assert pace.tell(0, 4) and str(pace) == ""
    assert not pace.tell(0, 4) and str(pace) == ""
    clock.now += 2
    assert not pace.tell(1, 4) and str(pace) == "0.5 blocks a second, about 6 s left"
