"""Features with the marks of real ones, and the slow references that the tests compare with."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from potstill.similarity import SIMILARITIES
from potstill.types import DenseLogits, SourceCost, SourceOutputs

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests" / "similarity"

LATENT = 64
SIGNAL = 4.0  # the nearest neighbour is then right for 40 % of 500 images of 37 classes in 2,048 dimensions

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def labels_of(images: int, classes: int) -> Ints:
    """As many images of each class as can be, in no particular order."""
    return np.random.default_rng(images).permutation(np.arange(images) % classes)


class Network:
    """Draws features like the pooled output of a network that ends in ReLU: non-negative, half of them 0, a few large.

    A class is a point in a latent space of 64 dimensions, `signal` its distance from the origin in standard deviations
    of its images along one dimension. Classes and network come of `seed`; images of the seed of each draw.
    """

    def __init__(self, classes: int, dimensions: int, *, signal: float, seed: int) -> None:
        generator = np.random.default_rng([seed, 1])
        self._centres = generator.normal(size=(classes, LATENT)) / LATENT**0.5 * signal
        self._mixing = generator.normal(size=(LATENT, dimensions)) / LATENT**0.5
        self._scale = generator.lognormal(sigma=0.7, size=dimensions)

    def features(self, labels: Ints, *, seed: int) -> Floats:
        """Of one image for each label, `(N, D)`."""
        generator = np.random.default_rng([seed, 0])
        latent = self._centres[labels] + generator.normal(size=(len(labels), LATENT))
        before = latent @ self._mixing + 0.5 * generator.normal(size=(len(labels), len(self._scale)))
        return np.asarray(np.maximum(before, 0) ** 1.5 * self._scale)


def pooled_features(labels: Ints, dimensions: int, *, signal: float = SIGNAL, seed: int = 0) -> Floats:
    """One draw of one network, `(N, D)`."""
    return Network(int(labels.max()) + 1, dimensions, signal=signal, seed=seed).features(labels, seed=seed)


def source_outputs(name: str, features: Floats, classes: int, seed: int) -> SourceOutputs:
    """Cached outputs: float16 features and the logits of a random classifier on them."""
    generator = np.random.default_rng(seed)
    scaled = features / features.std()
    logits = scaled @ generator.normal(size=(features.shape[1], classes)) * 3 / features.shape[1] ** 0.5
    logits -= logits.mean(axis=0)
    maximum = logits.max(axis=1)
    shifted = logits - maximum[:, None]
    return SourceOutputs(
        source=name,
        image_ids=tuple(f"{row:06d}" for row in range(len(features))),
        features=features.astype(np.float16),
        logits=DenseLogits(
            shifted.astype(np.float16),
            maximum.astype(np.float32),
            (maximum + np.log(np.exp(shifted).sum(axis=1))).astype(np.float32),
        ),
        label_space="source",
        classes=None,
        cost=SourceCost(0, 0.0, None),
        key=name,
    )


def load_module(path: Path) -> ModuleType:
    """A module of the tests, which are not importable by name."""
    spec = importlib.util.spec_from_file_location(f"tests_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot load {path}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def naive_references() -> dict[str, Callable[..., float]]:
    """The slow reference of each metric, from its test file; called with what the metric needs, in that order."""
    found: dict[str, Callable[..., Any]] = {}
    for name in SIMILARITIES:
        path = TESTS / f"test_{name}.py"
        if path.exists():
            module = load_module(path)
            build = _COMPOSED.get(name, lambda module, name=name: getattr(module, f"naive_{name}", None))
            found[name] = build(module)
    return {name: function for name, function in found.items() if function is not None}


def _one_hot(labels: Ints) -> Floats:
    return (labels[:, None] == np.unique(labels)) * 1.0


def _kite_reference(module: ModuleType) -> Callable[..., float]:
    def reference(features: Floats, labels: Ints, random_features: Floats) -> float:
        centred = features - features.mean(axis=0)
        with_labels: float = module.naive_alignment(centred, _one_hot(labels))
        return with_labels / float(module.naive_alignment(centred, random_features))

    return reference


# References that have other arguments than their metric, or are put together from several.
_COMPOSED: dict[str, Callable[[ModuleType], Callable[..., float] | None]] = {
    "knn": lambda module: lambda features, labels: module.naive_knn(features, labels, 1),
    "cka": lambda module: lambda features, labels: module.naive_cka(features, _one_hot(labels)),
    "gbc": lambda module: lambda features, labels: module.naive_gbc(features, labels, "spherical"),
    "energy": lambda module: (
        lambda features, labels: module.naive_free_energy(features) + module.naive_separation(features, labels)
    ),
    "kite": _kite_reference,
}
