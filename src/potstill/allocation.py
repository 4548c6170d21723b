"""How the C library handles the memory of large tensors on a CPU."""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache

# Parameters of mallopt, from glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST = 2**31 - 1


@cache
def keep_freed_memory() -> bool:
    """Let the process keep the memory of tensors that were freed, for those of the next step; whether it does.

    glibc returns every large block to the system and gets it back empty, page by page: with MobileNetV3-small on two
    cores a quarter of a training step was spent on that. Peak memory is the same; it is given back when the process
    ends, rather than between steps. Other C libraries are left as they are, and so is a process whose environment
    says how to allocate (MALLOC_..., GLIBC_TUNABLES) or that uses another allocator, which ignores this.
    """
    chosen = [name for name in os.environ if name.startswith(("MALLOC_", "GLIBC_TUNABLES"))]
    if not sys.platform.startswith("linux") or chosen:
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # musl
        return False
    # Older versions of glibc accept no more than 32 MiB.
    kept = any(mallopt(M_MMAP_THRESHOLD, size) for size in (2**30, 2**25))
    return bool(kept and mallopt(M_TRIM_THRESHOLD, LARGEST))
