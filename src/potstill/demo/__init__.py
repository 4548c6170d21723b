"""The embedded target and mini zoo: a complete example that needs no network.

Source models, generic student weights and their cards are data files of this package; the scripts that made them are
`benchmarks/mini_zoo/` in the repository.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from potstill.demo.target import write_demo_target

__all__ = ["STUDENT", "mini_zoo_file", "student_weights", "write_demo_target"]

STUDENT = "timm/test_byobnet"


def mini_zoo_file() -> Path:
    """The zoo file of the embedded sources.

    >>> mini_zoo_file().name
    'zoo.yaml'
    """
    return Path(__file__).parent / "mini_zoo" / "zoo.yaml"


def student_weights() -> Path:
    """Generic weights of `STUDENT` without a classifier: float16 safetensors, trained on invented shapes, no glyphs.

    >>> student_weights().name
    'student.safetensors'
    """
    return Path(__file__).parent / "student.safetensors"


def __getattr__(name: str) -> Any:
    # Pillow and scikit-learn are imported when the target is written, not before.
    if name != "write_demo_target":
        raise AttributeError(f"module 'potstill.demo' has no attribute '{name}'")
    from potstill.demo.target import write_demo_target

    return write_demo_target
