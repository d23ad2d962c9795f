"""How this process gets its memory from the system."""

import ctypes

MMAP_MAX, TRIM_THRESHOLD = -4, -1  # numbers of mallopt(3)


def keep_freed_memory() -> None:
    """Has the C library use freed memory again, which it would else hand back and fetch anew for every large array.

    The system clears the pages that it gives: of a network's forward pass on a CPU that was a tenth. Where the C
    library is not GNU's, nothing changes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(MMAP_MAX, 0)  # no mapping of its own for a large array
        mallopt(TRIM_THRESHOLD, -1)  # and nothing back
