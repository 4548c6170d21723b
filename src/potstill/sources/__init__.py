"""Sources: the zoo file, and frozen models that answer for it."""

from potstill.sources.arrays import GivenAnswers
from potstill.sources.fingerprints import Fingerprint, content_files, content_sha256, file_status
from potstill.sources.frozen import FrozenSource
from potstill.sources.opening import Source, open_source, open_untrained, source_identity
from potstill.sources.zoo import load_zoo

__all__ = [
    "Fingerprint",
    "FrozenSource",
    "GivenAnswers",
    "Source",
    "content_files",
    "content_sha256",
    "file_status",
    "load_zoo",
    "open_source",
    "open_untrained",
    "source_identity",
]
