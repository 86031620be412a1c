"""Memory of large tensors goes back to the system as soon as they are freed."""

import ctypes

THRESHOLD = 2**20  # bytes
M_MMAP_THRESHOLD = -3  # of malloc.h


def return_freed_memory() -> bool:
    """Have the GNU C library map each block of a MiB or more on its own, in this process; False where there is none.

    It would cut them out of one heap, and soon it does so for blocks of up to 32 MiB: short-lived tensors then
    leave holes between those that are kept, which stay with the process. Mapping costs time, since the
    system clears each page that it gives.
    """
    try:
        return bool(ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, THRESHOLD))
    except (OSError, AttributeError):
        return False
