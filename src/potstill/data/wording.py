"""How messages name things."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


def name_some(names: Iterable[str], *, limit: int = 5) -> str:
    """The first names, quoted, and how many more there are.

    >>> name_some(["a", "b", "c"], limit=2)
    "'a', 'b' and 1 more"
    """
    every = list(names)
    shown = ", ".join(f"'{name}'" for name in every[:limit])
    return f"{shown} and {len(every) - limit} more" if len(every) > limit else shown


def count_of(number: int, noun: str) -> str:
    """A number with its noun.

    >>> count_of(1, "image"), count_of(2000, "class")
    ('1 image', '2,000 classes')
    """
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"


def near_name(name: str, known: Sequence[str]) -> str | None:
    """The known name that looks most like the given one, in any case, or None.

    >>> near_name("Aple", ["apple", "pear"])
    'apple'
    """
    lowered = {candidate.lower(): candidate for candidate in known}
    near = difflib.get_close_matches(name.lower(), lowered, n=1, cutoff=0.6)
    return lowered[near[0]] if near else None
