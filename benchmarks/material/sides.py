"""The side of a group: which images sources may train on, which are in a target's pool, and which in its test part.

A group is what must not straddle: a typeface family, an emoji's first code point, the stem of a file's name, a family
of tiles. The rule looks at the group's name alone, so that it is the same for every target, source and machine.
"""

from __future__ import annotations

import hashlib
from typing import Literal

Side = Literal["source", "pool", "test"]


def side_of(group: str) -> Side:
    """Side of a group: 40 % source, 30 % pool, 30 % test, by a hash of its name.

    >>> [side_of(name) for name in ("dejavu sans", "1f600", "lato")]
    ['source', 'test', 'pool']
    """
    bucket = int(hashlib.blake2b(group.encode(), digest_size=8).hexdigest(), 16) % 10
    return "source" if bucket < 4 else "pool" if bucket < 7 else "test"
