"""Memory that one step frees is kept for the next."""

import ctypes

TRIM_THRESHOLD, MMAP_MAX = -1, -4  # of glibc's malloc.h
NEVER, NONE = -1, 0


def keep_freed_memory() -> bool:
    """Have the C library keep what this process frees.

    Every step asks for the same large tensors. glibc maps each anew and returns it when
    it is freed, so the system clears all their pages again: a third of a step of the
    350m shape on two cores (docs/log.md). From here on the process holds the most that
    it ever needed.

    Returns:
        Whether it will; other C libraries than glibc go by rules of their own.
    """
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallopt"):
        return False
    asked = ((TRIM_THRESHOLD, NEVER), (MMAP_MAX, NONE))
    return all(library.mallopt(name, value) for name, value in asked)
