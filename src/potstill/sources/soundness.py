"""Signs that a source is fed with something else than it was trained on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from potstill.errors import SourceError
from potstill.types import SourceSpec

LARGEST_GAP = 100.0
"""In nats. Rightly normalised images of foreign domains stay below 5, pixels of 0..255 for 0..1 lie above 1,000
(210 pairs of a source and a target of the offline suite)."""


class _Seen(Exception):
    """The first batch norm layer was reached."""


def input_gap(model: nn.Module, images: Tensor) -> float | None:
    """How far activations before the first batch norm layer are from those in training, in nats; None without one.

    Per channel the Kullback-Leibler divergence between the normal distributions of the seen and the stored mean and
    variance; the median over channels. No label is needed, and nothing behind that layer is computed.
    """
    layer = next((each for each in model.modules() if isinstance(each, nn.BatchNorm2d)), None)
    if layer is None or layer.running_mean is None or layer.running_var is None:
        return None
    stored_mean, stored_var = layer.running_mean, layer.running_var + layer.eps
    gaps: list[Tensor] = []

    def compare(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen = inputs[0].float()
        variance = seen.var((0, 2, 3)) + layer.eps  # some stored variances are zero
        moved = (variance + (seen.mean((0, 2, 3)) - stored_mean) ** 2) / stored_var
        gaps.append(0.5 * (moved - 1 - (variance / stored_var).log()))
        raise _Seen

    handle = layer.register_forward_pre_hook(compare)
    try:
        with torch.inference_mode():
            model(images)
    except _Seen:
        pass
    finally:
        handle.remove()
    return float(gaps[0].median()) if gaps else None


def check_normalisation(name: str, model: nn.Module, images: Tensor) -> None:
    """Raises SourceError, with the source's name, if the images can hardly be scaled as in training."""
    gap = input_gap(model, images)
    if gap is not None and not gap <= LARGEST_GAP:
        raise SourceError(
            f"Source '{name}': what its first layer sees of the images is {gap:.0f} nats away from its training, where "
            "rightly normalised images of any kind stay below 5. Correct `mean` and `std` in the zoo file: they are "
            "those of pixels from 0 to 1, not from 0 to 255."
        )


def check_published(spec: SourceSpec, mean: Sequence[float], std: Sequence[float]) -> None:
    """Raises SourceError if the zoo file normalises library weights otherwise than they were trained with."""
    for key, own in (("mean", mean), ("std", std)):
        said: tuple[float, ...] | None = getattr(spec, key)
        if said is not None and any(abs(a - b) > 1e-3 for a, b in zip(said, own, strict=True)):
            raise SourceError(
                f"Source '{spec.name}': the published weights of {spec.model} were trained with {key} {list(own)}, the "
                f"zoo file says {list(said)}. Leave mean and std out."
            )
