"""Stage 1: open a target, decide its parts, and turn its images into arrays and views."""

from potstill.data.files import FileCheck, Listing, inspect_files, list_images
from potstill.data.images import Pixels, read_image
from potstill.data.opening import LAYOUTS, open_target
from potstill.data.pixels import open_squares, pack_pixels
from potstill.data.preprocessing import fit_square, normalise, prepare_images, resized_size
from potstill.data.splits import (
    cross_validation_folds,
    redraw_labels,
    scoring_ids,
    split_digest,
    target_fingerprint,
    write_splits,
)
from potstill.data.squares import FileSquares, PackedSquares, Squares
from potstill.data.stored_views import VIEW_VERSION, StoredViews
from potstill.data.views import ViewDataset

__all__ = [
    "LAYOUTS",
    "VIEW_VERSION",
    "FileCheck",
    "FileSquares",
    "Listing",
    "PackedSquares",
    "Pixels",
    "Squares",
    "StoredViews",
    "ViewDataset",
    "cross_validation_folds",
    "fit_square",
    "inspect_files",
    "list_images",
    "normalise",
    "open_squares",
    "open_target",
    "pack_pixels",
    "prepare_images",
    "read_image",
    "redraw_labels",
    "resized_size",
    "scoring_ids",
    "split_digest",
    "target_fingerprint",
    "write_splits",
]
