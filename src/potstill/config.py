"""One flat configuration for every command. The command line, its help and `config.yaml` are made from these fields.

Only `pipeline` and `cli` see it; the stages take keyword arguments. This module stays light, so that `--help` is fast:
pydantic checks the values when a configuration is built.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import annotated_types as at
import yaml

from potstill.errors import ConfigError, DataError, SourceError, unknown_name

Share = Annotated[float, at.Ge(0), at.Le(1)]
Positive = Annotated[float, at.Gt(0)]
Count = Annotated[int, at.Ge(1)]

PACKAGE_PREFIX = "package:"
PACKAGE_DIR = Path(__file__).parent


def option(default: Any, text: str, *groups: str) -> Any:
    """A configuration field: its default, its help text and the groups of commands that show it."""
    return field(default=default, metadata={"help": text, "groups": groups})


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Every setting of a run. None means "decide from the data or the model"; what was decided is written back."""

    layout: Literal["parts", "classes", "manifest"] | None = option(
        None, "Layout of DATA: parts (train/<class>/...), classes (<class>/...), manifest.", "data"
    )
    unlabeled: Path | None = option(None, "Folder with unlabeled images.", "data")
    split_seed: int = option(0, "Seed of the drawn test part.", "data")
    test_fraction: Annotated[float, at.Gt(0), at.Lt(1)] = option(
        0.3, "Share of the labeled images held out for test where none is given.", "data"
    )
    label_fraction: Annotated[float, at.Gt(0), at.Le(1)] | None = option(
        None, "Hide all but this share of the training labels of each class.", "data"
    )
    labels_per_class: Count | None = option(None, "Hide all but so many training labels of each class.", "data")
    use_val: bool = option(False, "Report the val part of DATA too.", "data")
    max_bad: Share = option(0.01, "Largest share of unreadable images that is accepted.", "data")
    seed: Annotated[int, at.Ge(0)] = option(0, "Seed of label draw, batch order and head initialisation.", "data")

    zoo: str = option(
        "light",
        "Zoo file, or a built-in list: light, standard, diverse (need a network), mini (embedded, tiny).",
        "zoo",
    )
    licenses: Literal["any", "permissive"] = option(
        "any", "Sources that are used: any, or those under a known permissive licence alone.", "zoo"
    )
    metric: str = option("auto", "Similarity metric(s), comma-separated; the first one ranks.", "zoo")
    reference: str | None = option(None, "Source of the zoo whose features the metric rsa compares with.", "zoo")
    scoring_images: Annotated[int, at.Ge(2)] = option(
        500, "Most labeled images on which similarity is computed.", "zoo"
    )
    scheme: Literal["nearest", "equal", "power", "softmax", "top-k"] = option(
        "power", "How scores become source weights.", "weights"
    )
    power: Annotated[float, at.Ge(0)] = option(6.0, "Exponent of the power scheme.", "weights")
    softmax_temperature: Positive = option(
        0.5, "Temperature of the softmax scheme, in standard deviations of the scores.", "weights"
    )
    top_k: Count = option(3, "Number of sources of the top-k scheme.", "weights")

    student: str = option("timm/tf_efficientnet_lite0", "Student model, timm/NAME.", "student")
    student_weights: Path | None = option(None, "Local initial weights of the student.", "student")
    image_size: Annotated[int, at.Ge(8)] | None = option(None, "Side of the student's square input, pixels.", "student")

    min_weight: Share = option(
        0.01, "Sources with less than this share of the largest weight are left out of the training.", "weights"
    )
    # 0 would never train the target's head, 1 no source's; `transfer` is distillation without sources.
    label_weight: Annotated[float, at.Gt(0), at.Lt(1)] = option(
        0.3, "Share of the supervised loss in distillation.", "training"
    )
    temperature: Positive = option(1.0, "Softening of the sources' answers.", "training")
    source_temperature: Literal["same", "entropy"] = option(
        "same", "One temperature for all sources, or one for each that makes them equally certain.", "training"
    )
    standardise_logits: bool = option(False, "Learn z-scores of the sources' logits instead of their size.", "training")
    confidence: Literal["none", "entropy", "maximum"] = option(
        "none", "Let an image count more for sources that are certain about it.", "training"
    )
    stored_views: Annotated[int, at.Ge(0)] = option(
        0,
        "Augmented views of an image that sources and student both see (0: sources see it plain).",
        "training",
    )
    label_smoothing: Annotated[float, at.Ge(0), at.Lt(1)] = option(
        0.0, "Share of a label that is spread over all classes.", "training"
    )
    mixup: Annotated[float, at.Ge(0)] = option(
        0.0, "Mix pairs of images; parameter of the beta draw, 0: off.", "training"
    )
    balanced: bool = option(False, "Show labeled images of every class equally often.", "training")
    augment: Literal["crop", "weak"] = option(
        "weak", "Random views of the images: crop, or weak (crop, small rotation and shift, mild tone).", "training"
    )
    batch_size: Annotated[int, at.Ge(4)] = option(
        96, "Image passes of a training step, over all processes.", "training"
    )
    accumulation: Count = option(1, "Parts of a batch that go through the student one after the other.", "training")
    epochs: Positive | None = option(None, "Length in passes over the pool.", "training")
    steps: Count | None = option(None, "Length in steps (instead of --epochs).", "training")
    minutes: Positive | None = option(
        None, "Limit of training a student, in minutes; without another length also its length.", "training"
    )
    lr: Positive = option(0.03, "Peak learning rate.", "training")
    weight_decay: Annotated[float, at.Ge(0)] = option(5e-4, "Weight decay.", "training")
    ema: Annotated[float, at.Ge(0), at.Lt(1)] = option(0.99, "Decay of the averaged weights.", "training")
    bn: Literal["batch", "frozen"] = option("batch", "Batch statistics: used and updated, or kept.", "training")
    flip: bool = option(False, "Mirror images left-right in training (not for letters, digits, signs).", "training")
    unlabeled_ratio: Count = option(7, "FixMatch: unlabeled images for each labeled one.", "training")
    threshold: Share = option(0.95, "FixMatch: confidence from which a pseudo-label is used.", "training")

    overrides: dict[str, dict[str, Any]] = field(
        default_factory=dict,
        metadata={"help": "Settings of single methods (in a file): {fixmatch: {threshold: 0.8}}.", "groups": ()},
    )

    device: str = option("auto", "auto, cpu, cuda, cuda:1, mps.", "machine")
    precision: Literal["auto", "float32", "bfloat16"] = option(
        "auto", "Precision of the student's forward pass; auto: the faster one, measured.", "training"
    )
    memory_format: Literal["auto", "contiguous", "channels-last"] = option(
        "auto", "Order of image values in memory; auto: the faster one, measured.", "training"
    )
    compile: bool = option(False, "Compile the student with torch.compile before it trains.", "training")
    workers: Annotated[int, at.Ge(0)] = option(2, "Threads or processes that decode and augment images.", "machine")
    worker_start: Literal["thread", "fork", "spawn"] = option(
        "thread", "Prepare batches in threads, or in processes that are forked or spawned.", "training"
    )
    packed_gb: Annotated[float, at.Ge(0)] = option(
        8.0, "Keep decoded training images on disk up to so many GB; 0: decode them anew in every step.", "training"
    )
    cache_dir: Path | None = option(None, "Where source outputs are kept (POTSTILL_CACHE_DIR).", "machine")
    offline: bool = option(False, "Never touch a network.", "machine")


OVERRIDABLE = (
    "lr",
    "weight_decay",
    "ema",
    "label_weight",
    "temperature",
    "source_temperature",
    "standardise_logits",
    "confidence",
    "label_smoothing",
    "mixup",
    "balanced",
    "augment",
    "min_weight",
    "unlabeled_ratio",
    "threshold",
    "steps",
    "scheme",
    "power",
    "softmax_temperature",
    "top_k",
)
EXCLUSIVE = (("epochs", "steps"), ("label_fraction", "labels_per_class"))
BUILT_IN_ZOOS = ("mini", "light", "standard", "diverse")
PATH_FIELDS = ("unlabeled", "student_weights", "cache_dir")
COMMAND_KEYS = ("command", "data", "method", "methods", "seeds", "cross_validate")
MACHINE_FIELDS = ("cache_dir", "device", "workers", "worker_start", "packed_gb", "offline")


def build_config(values: Mapping[str, Any], *, file: Path | None = None) -> RunConfig:
    """Check values and fill in defaults; `values` win over those of the YAML `file`.

    Paths in the file are relative to it. `package:PATH` is a file that ships with Potstill.

    Raises:
        ConfigError: wrong values, all of them at once.
        UnknownNameError: a key that does not exist, with the nearest one that does.
    """
    from pydantic import TypeAdapter, ValidationError

    stored = _read_file(file) if file else {}
    for rivals in EXCLUSIVE:
        if any(values.get(key) is not None for key in rivals):
            stored = {key: value for key, value in stored.items() if key not in rivals}
    merged = {
        **stored,
        **{key: value for key, value in values.items() if value is not None},
    }
    known = [each.name for each in fields(RunConfig)]
    for key in merged:
        if key not in known:
            raise unknown_name("configuration key", key, known)
    try:
        config: RunConfig = TypeAdapter(RunConfig).validate_python(merged)
    except ValidationError as error:
        lines = [
            f"  {'.'.join(str(part) for part in item['loc'][:1])}: {item['msg']} (got {item['input']!r})"
            for item in error.errors()
        ]
        raise ConfigError("Wrong configuration:\n" + "\n".join(sorted(set(lines)))) from None
    for method, settings in config.overrides.items():
        for key in settings:
            if key not in OVERRIDABLE:
                raise unknown_name(f"override of {method}", key, OVERRIDABLE)
    for one, other in EXCLUSIVE:
        if getattr(config, one) is not None and getattr(config, other) is not None:
            raise ConfigError(f"Give {one} or {other}, not both.")
    return config


def _read_mapping(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"The configuration file {file} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"The configuration file {file} must hold keys and values, got {type(content).__name__}.")
    return content


def _read_file(file: Path) -> dict[str, Any]:
    resolved = dict(_read_mapping(file))
    for key in PATH_FIELDS:
        if isinstance(resolved.get(key), str):
            resolved[key] = resolve_path(resolved[key], file.parent)
    zoo = resolved.get("zoo")
    if isinstance(zoo, str) and zoo not in BUILT_IN_ZOOS:
        resolved["zoo"] = str(resolve_path(zoo, file.parent))
    for key in COMMAND_KEYS:
        resolved.pop(key, None)
    return resolved


def read_command(file: Path) -> dict[str, Any]:
    """The entries of a `config.yaml` beside the settings: command, data, and method or methods and seeds."""
    return {key: value for key, value in _read_mapping(file).items() if key in COMMAND_KEYS}


def resolve_path(text: str, base: Path) -> Path:
    """A path of a configuration file as a path of this machine."""
    if text.startswith(PACKAGE_PREFIX):
        return PACKAGE_DIR / text.removeprefix(PACKAGE_PREFIX)
    return base / text


def portable_path(path: Path, base: Path) -> str:
    """A path as a configuration file under `base` has it: relative, so that it names no machine or user."""
    if path.resolve().is_relative_to(PACKAGE_DIR):
        return PACKAGE_PREFIX + path.resolve().relative_to(PACKAGE_DIR).as_posix()
    return Path(os.path.relpath(path.resolve(), base.resolve())).as_posix()


def config_record(config: RunConfig, base: Path) -> dict[str, Any]:
    """The settings as plain data for `config.yaml` in the folder `base`."""
    record: dict[str, Any] = {}
    for each in fields(config):
        value = getattr(config, each.name)
        if isinstance(value, Path):
            value = portable_path(value, base)
        elif each.name == "zoo" and value not in BUILT_IN_ZOOS:
            value = portable_path(Path(value), base)
        record[each.name] = value
    return record


def overridden(config: RunConfig, *names: str) -> RunConfig:
    """The settings of one method: those of all, replaced by its own under the first of its names that has some."""
    own = next((config.overrides[name] for name in names if name in config.overrides), None)
    return build_config({**vars(config), **own, "overrides": {}}) if own else config


def check_student_weights(config: RunConfig) -> None:
    """Notice a mistyped path before a directory is made or a source is run. Raises SourceError."""
    weights = config.student_weights
    if weights is not None and not weights.is_file():
        raise SourceError(f"There is no weights file {weights}. Check --student-weights (student_weights in a config).")


def check_data_path(data: Path) -> Path:
    """The data path, if something is there."""
    if not data.exists():
        raise DataError(f"There is no folder or manifest {data}. Check the path.")
    return data
