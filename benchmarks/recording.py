"""What the result files of all benchmarks say about how they came to be."""

from __future__ import annotations

import re
import resource
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def commit_of(*paths: str) -> str:
    """The commit that is measured; `+` where the package, or one of the given paths under the root, differs from it."""
    name = _git("rev-parse", "--short=12", "HEAD").strip()
    return name + ("+" if _git("status", "--porcelain", "--", "src", *paths).strip() else "")


def peak_bytes() -> int:
    """Largest resident set of this process so far.

    Linux counts the parent's memory into getrusage's maximum of a process that was started from it, so that its status
    file is read where there is one.
    """
    status = Path("/proc/self/status")
    match = re.search(r"VmHWM:\s+(\d+) kB", status.read_text(encoding="ascii")) if status.exists() else None
    if match:
        return 1024 * int(match[1])
    maximum = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return maximum if sys.platform == "darwin" else 1024 * maximum


def _git(*arguments: str) -> str:
    return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True).stdout
