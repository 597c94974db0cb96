"""Memory that one step frees is kept for the next."""

import ctypes

TRIM_THRESHOLD, MMAP_MAX = -1, -4  # of glibc's malloc.h
NEVER, NONE = -1, 0
LIBRARY = ctypes.CDLL(None)


def keep_freed_memory() -> bool:
    """Have the C library keep what this process frees.

    Every step asks for the same large tensors. glibc maps each anew and returns it when
    it is freed, so the system clears all their pages again: a third of a step of the
    350m shape on two cores (docs/log.md). Steps of unlike sizes leave gaps that add up:
    call `return_unused_memory` from time to time.

    Returns:
        Whether it will; other C libraries than glibc go by rules of their own.
    """
    if not hasattr(LIBRARY, "mallopt"):
        return False
    asked = ((TRIM_THRESHOLD, NEVER), (MMAP_MAX, NONE))
    return all(LIBRARY.mallopt(name, value) for name, value in asked)


def return_unused_memory() -> None:
    """Give all pages back that nothing is in, if the C library is glibc."""
    if hasattr(LIBRARY, "malloc_trim"):
        LIBRARY.malloc_trim(0)
