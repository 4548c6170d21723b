"""Sources: the zoo file, and frozen models that answer for it."""

from potstill.sources.opening import FrozenSource, open_source, open_untrained, source_identity
from potstill.sources.zoo import load_zoo

__all__ = ["FrozenSource", "load_zoo", "open_source", "open_untrained", "source_identity"]
