"""Progress is a bar on a terminal, and a few plain lines elsewhere."""

import os
import pty
import subprocess
import sys

import pytest

from sn6 import progress
from sn6.progress import duration, phase, track

SHOW = "from sn6.progress import track\nfor _ in track(range(3), 'counting 3 things'): pass"


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until a test moves it."""

    class Clock:
        now = 0.0

    monkeypatch.setattr(progress.time, "monotonic", lambda: Clock.now)
    return Clock


def lines(capsys):
    return capsys.readouterr().err.splitlines()


def test_short_work_is_one_line(capsys):
    assert [*track("abc", "counting 3 letters")] == ["a", "b", "c"]
    assert lines(capsys) == ["counting 3 letters"]


def test_long_work_has_a_line_for_each_tenth_at_most(capsys, clock):
    with phase("work", 1000) as shown:
        for done in range(1000):
            clock.now = done  # a second for each piece: a tenth takes longer than INTERVAL
            shown.update(done)
    printed = lines(capsys)
    assert len(printed) == 10  # the first, and after 100, 200, ..., 900
    assert printed[1] == "work: 100 of 1,000, 15 min 00 s left"


def test_very_long_work_has_a_line_every_five_minutes(capsys, clock):
    with phase("work", 10**9) as shown:
        for minute in range(61):
            clock.now = 60.0 * minute
            shown.update(minute)
    assert len(lines(capsys)) == 1 + 60 / 5


def test_what_an_earlier_process_did_is_not_counted_as_fast(capsys, clock):
    with phase("work", 100) as shown:
        shown.resume(80)
        clock.now = 30.0
        shown.update(90)
    assert lines(capsys)[-1].endswith(f"{duration(30)} left")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.6, "1 min 00 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_a_terminal_gets_a_bar_that_disappears():
    main, child = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100"}
    subprocess.run([sys.executable, "-c", SHOW], stderr=child, check=True, env=environment)
    os.close(child)
    written = b""
    try:
        while piece := os.read(main, 4096):
            written += piece
    except OSError:  # the end, on Linux
        pass
    os.close(main)
    assert b"counting 3 things" in written
    assert written.rstrip(b"\x1b[?25h\r\n").endswith(b"\x1b[2K")  # the line of the bar is cleared at the end
