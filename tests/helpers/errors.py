"""Assertions on UserErrors: on their kind, key and value, not on their English."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from sn6.errors import Kind, UserError

ANY = object()


@contextmanager
def user_error(kind: Kind, key: object = ANY, value: Any = ANY) -> Iterator[pytest.ExceptionInfo[UserError]]:
    """Assert that the block raises a UserError of this kind, key and value, whose message is one line."""
    with pytest.raises(UserError) as caught:
        yield caught
    error = caught.value
    assert error.kind == kind, f"{error.kind}: {error}"
    assert key is ANY or error.key == str(key), f"{error.key}: {error}"
    assert value is ANY or error.value == value, f"{error.value}: {error}"
    assert str(error.args[0]).count("\n") == 0
