"""Freed memory is reused for the next array."""

import subprocess
import sys

import pytest

PROGRAM = """
import resource
import sys
import numpy as np
from sn6.processes import keep_freed_memory

if sys.argv[1] == "kept":
    keep_freed_memory()
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
np.ones(3_000_000)  # 24 MB
before = faults()
for _ in range(10):
    np.ones(3_000_000)
print(faults() - before)
"""


def faults(how):
    """Return how many pages the system gave for ten arrays of one size, one after another."""
    return int(subprocess.run([sys.executable, "-c", PROGRAM, how], check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="needs the GNU C library")
def test_an_array_reuses_the_pages_of_the_one_before():
    assert faults("as it is") > 100
    assert faults("kept") < 10
