"""Freed memory stays with the process where glibc is told so, and only there."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource
from potstill.allocation import keep_freed_memory
kept = keep_freed_memory() if {asked} else False
def touch():
    block = bytearray(48 * 2**20)  # far above the largest size that glibc learns to keep by itself
    del block
touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    touch()
print(int(kept), resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(asked: bool, **variables: str) -> tuple[bool, int]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    code = FAULTS.format(asked=asked)
    out = subprocess.run(
        [sys.executable, "-c", code], env={**clean, **variables}, capture_output=True, text=True, check=True
    )
    kept, faults = out.stdout.split()
    return bool(int(kept)), int(faults)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone has this setting")
def test_large_blocks_are_used_again() -> None:
    pages = 10 * 48 * 2**20 // os.sysconf("SC_PAGE_SIZE")
    usual, kept = page_faults(False), page_faults(True)
    assert kept[0]
    # Huge pages, where the system has them, make the usual way cheaper than one fault a page.
    assert kept[1] < 0.05 * pages
    assert kept[1] < usual[1]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc alone has this setting")
def test_who_chose_an_allocation_keeps_it() -> None:
    assert page_faults(True, MALLOC_ARENA_MAX="2")[0] is False
