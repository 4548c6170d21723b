"""Read and check a zoo file: YAML, plain data, one entry a source. Nothing is loaded and nothing is written."""

from __future__ import annotations

import dataclasses
import difflib
import importlib.resources
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from potstill.errors import ConfigError, SourceError, UnknownNameError, unknown_name
from potstill.models import architecture_of
from potstill.sources.opening import KINDS, kind_of, known_kinds
from potstill.types import SourceSpec, Zoo

# Built-in zoos: package and file below it.
BUILT_IN = {
    "mini": ("potstill.demo", "mini_zoo/zoo.yaml"),
    "light": ("potstill.sources", "zoos/light.yaml"),
    "standard": ("potstill.sources", "zoos/standard.yaml"),
    "diverse": ("potstill.sources", "zoos/diverse.yaml"),
}
INTERPOLATIONS = ("bilinear", "bicubic", "lanczos", "nearest")
PATH_KEYS = ("weights", "file", "features", "logits", "paths")


def load_zoo(file_or_name: str | Path) -> Zoo:
    """Read a zoo file, or a built-in zoo by its name (those of BUILT_IN).

    Files that it names are looked for when their source is asked: one that is absent stops no other source, and none
    is needed for answers that the cache has.

    Raises ConfigError listing everything that is wrong in the file; SourceError if the zoo file is absent;
    UnknownNameError for a name that is no built-in zoo.
    """
    path = _zoo_path(file_or_name)
    document = _read_yaml(path)
    problems: list[str] = []
    sources: dict[str, SourceSpec] = {}
    for number, entry in enumerate(_entries(document, problems), start=1):
        spec = _spec_of(entry, number, path.parent, problems)
        if spec is None:
            continue
        if spec.name in sources:
            problems.append(f"source '{spec.name}': the name occurs more than once; names must be unique")
        sources[spec.name] = spec
    if problems:
        raise ConfigError(f"Zoo file {path}:" + "".join(f"\n  - {problem}" for problem in problems))
    return Zoo(name=path.parent.name if path.stem == "zoo" else path.stem, sources=sources)


def _zoo_path(file_or_name: str | Path) -> Path:
    text = str(file_or_name)
    if text in BUILT_IN:
        package, file = BUILT_IN[text]
        path = Path(str(importlib.resources.files(package))) / file
        if not path.is_file():
            raise SourceError(f"The built-in zoo '{text}' is not part of this installation ({file} is absent).")
        return path
    path = Path(file_or_name)
    if path.is_file():
        return path
    if path.suffix or path.name != text:
        raise SourceError(f"Zoo file not found: {path}. Give a YAML file or one of: {', '.join(BUILT_IN)}.")
    raise unknown_name("zoo", text, BUILT_IN)


def _read_yaml(path: Path) -> object:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"Zoo file {path} is not valid YAML: {error}") from error


def _entries(document: object, problems: list[str]) -> list[object]:
    entries = document.get("sources") if isinstance(document, Mapping) else None
    if not isinstance(document, Mapping) or not isinstance(entries, list) or not entries:
        problems.append("expected the key `sources` with a list of at least one source")
        return []
    problems.extend(f"unknown key `{key}`; only `sources` stands at the top" for key in document if key != "sources")
    return entries


def _spec_of(entry: object, number: int, folder: Path, problems: list[str]) -> SourceSpec | None:
    """The source of one entry, or None after its problems were added to the list."""
    if not isinstance(entry, Mapping):
        problems.append(f"source {number}: expected keys and values, got {entry!r}")
        return None
    label = f"source '{entry['name']}'" if isinstance(entry.get("name"), str) else f"source {number}"
    found: list[str] = []
    values: dict[str, Any] = {}
    for key, value in entry.items():
        if key not in CHECKS:
            near = difflib.get_close_matches(str(key), CHECKS, n=1, cutoff=0.5)
            found.append(f"unknown key `{key}`" + (f"; did you mean `{near[0]}`?" if near else ""))
        elif value is not None:
            try:
                values[key] = CHECKS[key](value)
            except ValueError as error:
                found.append(f"`{key}`: {error}, got {value!r}")
    found.extend(f"the key `{key}` is required" for key in ("name", "model") if entry.get(key) is None)
    if not found:
        found.extend(_consistency_problems(values))
    problems.extend(f"{label}: {problem}" for problem in found)
    if found:
        return None
    for key in PATH_KEYS:
        if key in values:
            values[key] = (folder / values[key]).absolute()
    return SourceSpec(**values)


def _consistency_problems(values: Mapping[str, Any]) -> list[str]:
    """What is wrong between the keys of one source whose values are right one by one."""
    problems = []
    kind = kind_of(values["model"])
    if kind is None:
        problems.append(f"`model`: unknown kind '{values['model']}'; known: {known_kinds()}")
    else:
        if kind == "timm":
            try:
                architecture_of(values["model"])
            except UnknownNameError as error:
                problems.append(f"`model`: {error}")
        foreign = [key for key in values if key not in (*COMMON_KEYS, *KINDS[kind].keys)]
        problems.extend(f"`{key}` does not apply to a source of kind {kind}" for key in foreign)
        if "sha256" in values and (kind in ("arrays", "hf") or not ("weights" in values or "file" in values)):
            problems.append("`sha256` is compared with a file that `weights` or, for onnx, `file` names; there is none")
    classes, count = values.get("classes"), values.get("num_classes")
    if classes is not None and count is not None and len(classes) != count:
        problems.append(f"`classes` has {len(classes)} names, `num_classes` is {count}")
    if classes is not None and len(set(classes)) != len(classes):
        problems.append("`classes` holds a name more than once")
    return problems


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("expected text (quote it if YAML takes it for a number or a truth value)")
    return value


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("expected true or false")
    return value


def _number(value: object, *, low: float = -math.inf, high: float = math.inf) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError("expected a number")
    if not low <= value <= high:
        raise ValueError(f"expected a number from {low:g} to {high:g}")
    return float(value)


def _count(value: object, *, low: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise ValueError(f"expected a whole number of at least {low}")
    return value


def _channels(value: object, *, low: float = -2.0) -> tuple[float, ...]:
    if not isinstance(value, list) or len(value) != 3:
        raise ValueError("expected three numbers, [red, green, blue]")
    numbers = tuple(_number(one, low=low) for one in value)
    if max(numbers) > 2:
        raise ValueError("expected values for pixels from 0 to 1; divide those for 0 to 255 by 255")
    return numbers


def _names(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise ValueError("expected a list of class names")
    return tuple(_text(one) for one in value)


def _interpolation(value: object) -> str:
    if value not in INTERPOLATIONS:
        raise ValueError(f"expected one of {', '.join(INTERPOLATIONS)}")
    return str(value)


def _digest(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[0-9a-fA-F]{64}", value):
        raise ValueError("expected 64 hexadecimal digits")
    return value.lower()


def _accuracy(value: object) -> dict[str, float | str]:
    # YAML 1.1, which PyYAML reads, takes an unquoted `on` for the truth value.
    keys = {("on" if key is True else key): key for key in value} if isinstance(value, Mapping) else {}
    if not isinstance(value, Mapping) or set(keys) != {"value", "on"}:
        raise ValueError("expected {value: a rate from 0 to 1, on: the data it was measured on}")
    return {"value": _number(value[keys["value"]], low=0, high=1), "on": _text(value[keys["on"]])}


# The keys of a source and what checks them; each returns the value or raises ValueError("expected ...").
CHECKS: Mapping[str, Callable[[object], object]] = {
    **{field.name: _text for field in dataclasses.fields(SourceSpec)},
    "num_classes": lambda value: _count(value, low=0),
    "image_size": lambda value: _count(value, low=1),
    "mean": _channels,
    "std": lambda value: _channels(value, low=1e-6),
    "interpolation": _interpolation,
    "crop": lambda value: _number(value, low=0.01, high=1),
    "classes": _names,
    "accuracy": _accuracy,
    "sha256": _digest,
    "allow_pickle": _flag,
}
COMMON_KEYS = ("name", "model", "num_classes", "classes", "license", "trained_on", "accuracy", "sha256", "url")
