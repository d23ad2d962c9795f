"""The wording of messages and help is in one golden file; other tests assert on kinds, keys and values."""

from typing import get_args

from helpers.wording import GOLDEN, messages, wording

from sn6.errors import Kind
from sn6.inspection.faults import FATAL, WARNINGS


def test_the_wording_is_that_of_the_golden_file():
    """After a change that is meant: `python tests/helpers/wording.py`, and read the difference."""
    assert wording() == GOLDEN.read_text(encoding="utf-8")


def test_every_error_has_a_kind():
    kinds = {*get_args(Kind), *FATAL, *WARNINGS}
    without = [message for message in messages() if message.kind not in kinds and not message.kind.startswith("{")]
    assert not without


def test_messages_are_one_line_that_begins_and_ends_plainly():
    for message in messages():
        assert "\n" not in message.text
        assert message.text == message.text.strip()
        assert message.text.endswith("...") or not message.text.endswith(".")
