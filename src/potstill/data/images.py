"""Decode an image file to what a person sees in a viewer: uint8 RGB.

The rules, for all of JPEG, PNG, WEBP, BMP, TIFF and GIF:

- EXIF orientation is applied; the first frame of an animation is taken.
- Transparency (alpha, palette or colour-key) is laid over a background colour, white by default.
- 16-bit grey is scaled from 0..65535 to 0..255 (value / 257, rounded), never clipped and never stretched to its own
  range. 32-bit integers are taken as 16-bit values; those outside 0..65535 are refused. Floating-point images must lie
  in 0..1.
- CMYK is converted by Pillow's plain formula. Embedded colour profiles (ICC) are not applied: like the training
  pipelines of the published models, we read the stored numbers as sRGB.
- A truncated or damaged file is an error, never a partly grey image.
"""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from potstill.errors import DataError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"})

Pixels = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]
WHITE: Colour = (255, 255, 255)


def read_image(path: str | os.PathLike[str], *, background: Colour = WHITE, smallest_side: int | None = None) -> Pixels:
    """Decode an image file to RGB, uint8 `(H, W, 3)`; the module documents how each kind of file is read.

    background: the colour, 0..255 each, that shows through transparent pixels. smallest_side: a JPEG may be shrunk by
    2, 4 or 8 while it is decoded, as long as no side becomes smaller than this; that is faster and changes pixels a
    little. None (the default) never shrinks.

    Raises DataError, with the path and the reason, for a file that cannot be read or decoded.
    """
    try:
        return decode_image(read_bytes(path), background=background, smallest_side=smallest_side)
    except DataError as error:
        raise DataError(f"{os.fspath(path)}: {error}. Expected a {_format_names()} image.") from error


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a file. Raises DataError whose message is the reason alone, without the path."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"cannot read the file ({error.strerror or type(error).__name__})") from error


def decode_image(content: bytes, *, background: Colour = WHITE, smallest_side: int | None = None) -> Pixels:
    """Decode the bytes of an image file, uint8 `(H, W, 3)`, as `read_image` does. Raises DataError whose message is the
    reason alone."""
    if not content:
        raise DataError("the file is empty (0 bytes)")
    try:
        # Only these decoders may see the bytes: Pillow's rarer ones have been the way in for hostile files.
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if smallest_side is not None:
                image.draft(None, (smallest_side, smallest_side))  # does nothing for other formats
            image.load()
            return _to_rgb(image, background)
    except DataError:
        raise
    except UnidentifiedImageError as error:
        raise DataError(f"not a {_format_names()} image, or damaged at its start") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(
            "more pixels than Pillow opens safely (a decompression bomb?); make the image smaller"
        ) from error
    except Exception as error:  # Decoders raise OSError, SyntaxError, ValueError, struct.error, ... on damaged bytes.
        detail = str(error) or type(error).__name__
        raise DataError(f"cannot be decoded ({detail})") from error


def _to_rgb(image: Image.Image, background: Colour) -> Pixels:
    """Grey, palette, transparent, deep or CMYK to uint8 RGB, the right way up."""
    upright = _upright(image)
    if upright.mode.startswith(("I", "F")):
        return _deep_grey_to_rgb(upright, background)
    if upright.has_transparency_data:
        rgba = upright.convert("RGBA")
        flat = Image.new("RGBA", rgba.size, (*background, 255))
        flat.alpha_composite(rgba)
        upright = flat
    return np.array(upright if upright.mode == "RGB" else upright.convert("RGB"), dtype=np.uint8)


def _upright(image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation. Unreadable EXIF counts as none, as in image viewers."""
    try:
        if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:  # else it would copy the image for nothing
            return ImageOps.exif_transpose(image)
    except Exception:  # The parser raises many types on damaged EXIF; the pixels themselves are fine.
        pass
    return image


def _deep_grey_to_rgb(image: Image.Image, background: Colour) -> Pixels:
    """16-bit, 32-bit integer or floating-point grey to uint8 RGB, by the fixed ranges of the module's rules."""
    values = np.array(image)
    if image.mode == "F":
        if not np.isfinite(values).all() or values.min() < 0 or values.max() > 1:
            raise DataError("a floating-point image with values outside 0..1; save it as 8-bit or 16-bit")
        grey = np.rint(values * 255.0)
    else:
        if values.min() < 0 or values.max() > 65535:
            raise DataError("a 32-bit image with values outside 0..65535; save it as 8-bit or 16-bit")
        grey = np.rint(values / 257.0)
    rgb = np.repeat(grey.astype(np.uint8)[:, :, None], 3, axis=2)
    key = image.info.get("transparency")
    if isinstance(key, int):
        rgb[values == key] = background
    return rgb


def _format_names() -> str:
    return ", ".join(FORMATS[:-1]) + f" or {FORMATS[-1]}"
