"""Memory set up once for a process that makes and drops large arrays slide after slide, and whose objects stay.

A profile of the worker had a quarter of its CPU time in the kernel, clearing pages that were given back to the system
and taken again for the next slide, and a twentieth in the garbage collector's walks over objects that never die.
"""

from __future__ import annotations

import ctypes
import gc
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # parameters of glibc's mallopt(3)
_KEPT_BYTES = 1 << 29  # free memory at the top of the heap that is kept for the next slide
_LARGEST_BYTES = 1 << 25  # larger arrays are mapped one by one; glibc allows no more
_YOUNG_OBJECTS = 50_000  # net new objects before the collector looks; records of a poll are some thousands


def keep_freed_memory() -> None:
    """Tells the C library to keep what is freed for the next slide; does nothing where it is not glibc."""
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _LARGEST_BYTES)
        mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_ARENA_MAX, 2)


def freeze_objects() -> None:
    """Takes all objects there are, modules and graphs above all, out of the garbage collector's sight. To be called
    when everything that stays has been built."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, 20, 100)
