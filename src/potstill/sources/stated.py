"""What a source that knows nothing of its own preprocessing must be told in the zoo file."""

from __future__ import annotations

from potstill.errors import SourceError
from potstill.types import Preprocessing, SourceSpec

NEEDED = ("image_size", "mean", "std")


def stated_preprocessing(spec: SourceSpec) -> Preprocessing:
    """The preprocessing of the zoo entry. Raises SourceError if its size or normalisation is not stated."""
    if spec.image_size is None or spec.mean is None or spec.std is None:
        missing = [key for key in NEEDED if getattr(spec, key) is None]
        raise SourceError(
            f"Source '{spec.name}': a source of kind {spec.model} says nothing of how its images are prepared. Add "
            f"{', '.join(missing)} to the zoo file: what the model was trained with (mean [0, 0, 0] and std [1, 1, 1] "
            "for pixels from 0 to 1)."
        )
    return Preprocessing(
        image_size=spec.image_size,
        mean=spec.mean,
        std=spec.std,
        interpolation=spec.interpolation or "bilinear",
        crop=1.0 if spec.crop is None else spec.crop,
    )
