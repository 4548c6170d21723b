"""The key of a cache entry: a hash of all that its rows depend on besides the image itself."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import PIL

from potstill.cache.records import canonical_json
from potstill.data.stored_views import VIEW_VERSION

STORE_FORMAT = 1


def key_fields(
    identity: Mapping[str, Any], *, dtype: str = "float32", view: int = 0, flip: bool = False
) -> dict[str, Any]:
    """What goes into the key: the source's identity (with its preprocessing), decoder, dtype, view and store format.

    View 0 is the plain one, on which `flip` has no influence.

    The versions of torch and timm are not part of it: they change often and outputs hardly ever. The manifest holds
    them, and cached rows are compared with recomputed ones when they change.
    """
    return {
        "source": dict(identity),
        "decoder": {"name": "pillow", "version": PIL.__version__},
        "dtype": dtype,
        "view": {"number": view, "flip": flip, "version": VIEW_VERSION} if view else 0,
        "format": STORE_FORMAT,
    }


def cache_key(fields: Mapping[str, Any]) -> str:
    """sha256 of the canonical JSON of the fields, 64 hex digits; any difference in a value gives another key.

    >>> cache_key({"view": 0})[:8]
    'e69ec1de'
    """
    return hashlib.sha256(canonical_json(fields).encode()).hexdigest()


def is_current(fields: Mapping[str, Any]) -> bool:
    """Whether this version of the decoder and of the store could ask for the entry with these fields."""
    now = key_fields({})
    return all(fields[name] == now[name] for name in ("decoder", "format"))
