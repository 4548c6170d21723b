"""Open a source, and say what its numbers depend on without loading it. A new kind of source is a line in KINDS."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from potstill.errors import PotstillError, SourceError
from potstill.sources.arrays import GivenAnswers, arrays_identity, open_arrays
from potstill.sources.callables import callable_identity, open_callable
from potstill.sources.fingerprints import Fingerprint, content_sha256
from potstill.sources.frozen import FrozenSource
from potstill.sources.hf_models import hf_identity, open_hf
from potstill.sources.onnx_files import onnx_identity, open_onnx
from potstill.sources.timm_models import open_timm, timm_identity
from potstill.sources.timm_models import open_untrained as open_untrained_timm
from potstill.sources.torchvision_models import open_torchvision, torchvision_identity
from potstill.types import SourceSpec

Source = FrozenSource | GivenAnswers

PREPROCESSING_KEYS = ("image_size", "mean", "std", "interpolation", "crop")


@dataclass(frozen=True)
class Kind:
    """A kind of source: what its answers depend on, how it is opened, which keys of the zoo file it knows.

    `keys` are those beside the ones of every source. `named`: whether the zoo file says `kind/NAME`.
    """

    identity: Callable[[SourceSpec, Fingerprint], dict[str, Any]]
    open: Callable[[SourceSpec, str, bool], Source]
    keys: tuple[str, ...]
    named: bool = True


KINDS: Mapping[str, Kind] = {
    "timm": Kind(timm_identity, open_timm, ("weights", "revision", "allow_pickle", *PREPROCESSING_KEYS)),
    "torchvision": Kind(torchvision_identity, open_torchvision, ("weights", "allow_pickle", *PREPROCESSING_KEYS)),
    "hf": Kind(hf_identity, open_hf, ("weights", "revision", "allow_pickle", *PREPROCESSING_KEYS)),
    "onnx": Kind(
        onnx_identity, open_onnx, ("file", "features_output", "logits_output", *PREPROCESSING_KEYS), named=False
    ),
    "callable": Kind(
        callable_identity, open_callable, ("callable", "file", "weights", *PREPROCESSING_KEYS), named=False
    ),
    "arrays": Kind(arrays_identity, open_arrays, ("features", "logits", "paths"), named=False),
}


def open_source(spec: SourceSpec, *, device: str = "cpu", offline: bool = False) -> Source:
    """Load a source and check that it can be asked.

    Raises SourceError if weights are missing or do not fit or a package is, UnknownNameError for a model name that does
    not exist.
    """
    with _own_errors(spec):
        return _kind(spec).open(spec, device, offline)


def open_untrained(spec: SourceSpec, *, device: str = "cpu", seed: int = 0) -> FrozenSource:
    """The architecture of a source with random weights and without a classifier: what it sees before it is trained.

    Raises SourceError for a source whose architecture cannot be built by name.
    """
    if kind_of(spec.model) != "timm":
        raise SourceError(
            f"Source '{spec.name}' ({spec.model}) cannot be built with random weights; only timm/NAME can."
        )
    return open_untrained_timm(spec, device, seed)


def source_identity(spec: SourceSpec, fingerprint: Fingerprint = content_sha256) -> dict[str, Any]:
    """Everything that the outputs of a source depend on, as plain JSON data, without loading the model.

    Two specs with the same identity have the same outputs, whatever their names. `fingerprint` names the content of
    files. Raises as `open_source` does.
    """
    with _own_errors(spec):
        return _kind(spec).identity(spec, fingerprint)


def kind_of(model: str) -> str | None:
    """The kind of source that the `model` of a zoo entry names, or None if there is no such kind.

    >>> kind_of("timm/resnet18"), kind_of("onnx"), kind_of("resnet18")
    ('timm', 'onnx', None)
    """
    head, slash, name = model.partition("/")
    kind = KINDS.get(head)
    return head if kind is not None and kind.named == bool(slash and name) else None


def known_kinds() -> str:
    """All kinds, as they are written in a zoo file."""
    return ", ".join(f"{name}/NAME" if kind.named else name for name, kind in KINDS.items())


@contextmanager
def _own_errors(spec: SourceSpec) -> Iterator[None]:
    """Whatever a foreign library raises is an error of this source, so that it stops no other one."""
    try:
        yield
    except (PotstillError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise SourceError(
            f"Source '{spec.name}' ({spec.model}) cannot be opened: {type(error).__name__}: {error}"
        ) from error


def _kind(spec: SourceSpec) -> Kind:
    kind = kind_of(spec.model)
    if kind is None:
        raise SourceError(f"Source '{spec.name}': '{spec.model}' is of no known kind ({known_kinds()}).")
    return KINDS[kind]
