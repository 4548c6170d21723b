"""The settings that are compared: each changes one thing of BASE, the last ones two."""

from __future__ import annotations

from typing import Any

BASE: dict[str, Any] = {
    "image_size": 32,
    "batch_size": 96,
    "steps": 100,
    "lr": 0.1,
    "temperature": 2.0,
    "label_weight": 0.3,
    "device": "cpu",
    "precision": "float32",
    "memory_format": "channels-last",
    "workers": 0,
    "offline": True,
}
"""Those of `distill`, but for a learning rate that suits short runs and a temperature in the middle of its range."""

LEVERS: dict[str, dict[str, Any]] = {
    "base": {},
    "temperature 1": {"temperature": 1.0},
    "temperature 4": {"temperature": 4.0},
    "temperature 8": {"temperature": 8.0},
    "temperature by entropy": {"source_temperature": "entropy"},
    "standardised, temperature 1": {"standardise_logits": True, "temperature": 1.0},
    "standardised, temperature 2": {"standardise_logits": True},
    "confidence by entropy": {"confidence": "entropy"},
    "confidence by maximum": {"confidence": "maximum"},
    "8 stored views": {"stored_views": 8},
    "label smoothing 0.1": {"label_smoothing": 0.1},
    "mixup 0.2": {"mixup": 0.2},
    "mixup 1": {"mixup": 1.0},
    "balanced": {"balanced": True},
    "crop views": {"augment": "crop"},
    "no average": {"ema": 0.0},
    "twice as long": {"steps": 200},
    "four times as long": {"steps": 400},
    "four times as long, 8 stored views": {"steps": 400, "stored_views": 8},
    "four times as long, mixup 1": {"steps": 400, "mixup": 1.0},
}

# One target of each kind that the metric was not chosen on alone, and sources that know its classes left out.
TARGETS = ("scanned-digits", "latin", "hebrew", "signs", "icon-contexts", "flat-emoji")
LABELS_PER_CLASS = 5
SEEDS = (0, 1, 2)
