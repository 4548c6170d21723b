"""Which licences let a user do as they like with what a source says, commercial use included."""

from __future__ import annotations

from potstill.types import SourceSpec, Zoo

# Names as in SPDX, in lower case, and the words that people write for them.
PERMISSIVE = frozenset(
    {
        "0bsd",
        "apache-2.0",
        "bsd",
        "bsd-2-clause",
        "bsd-3-clause",
        "cc-by-3.0",
        "cc-by-4.0",
        "cc0",
        "cc0-1.0",
        "isc",
        "mit",
        "ofl-1.1",
        "public domain",
        "unlicense",
        "zlib",
    }
)


def is_permissive(license_name: str | None) -> bool:
    """Whether the licence is one of PERMISSIVE; several, joined by "and" or commas, must all be.

    >>> [is_permissive(each) for each in ("Apache-2.0", "MIT and OFL-1.1", "cc-by-nc-4.0", None)]
    [True, True, False, False]
    """
    if license_name is None:
        return False
    parts = license_name.lower().replace(" and ", ",").split(",")
    return all(part.strip() in PERMISSIVE for part in parts)


def permissive_sources(zoo: Zoo) -> tuple[Zoo, dict[str, str]]:
    """The zoo without sources whose licence is not known to be permissive, and the licences of those left out."""
    kept: dict[str, SourceSpec] = {spec.name: spec for spec in zoo if is_permissive(spec.license)}
    left_out = {spec.name: spec.license or "not stated" for spec in zoo if spec.name not in kept}
    return Zoo(zoo.name, kept), left_out
