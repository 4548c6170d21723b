"""Command-line options made from the fields of the configuration, so that each is described once."""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal, Union

import typer

from potstill.config import RunConfig

Data = Annotated[Path, typer.Argument(metavar="DATA", help="Folder of images, or a manifest (.csv, .parquet, .jsonl).")]
Output = Annotated[Path, typer.Option("--output", "-o", help="Directory of the run.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Start again where a run is.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")]
Json = Annotated[bool, typer.Option("--json", help="Machine output on stdout.")]

CONFIG_FILE = "config"


def takes_config(*groups: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command `--config FILE` and an option for each configuration field of the groups.

    The command is called with `settings`, the RunConfig that results from options over file over defaults; its own
    options `method`, `methods`, `seeds` and `cross_validate` come from the file too where they are not given.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        hints = typing.get_type_hints(RunConfig)
        chosen = [each for each in fields(RunConfig) if set(each.metadata["groups"]) & set(groups)]

        @functools.wraps(command)
        def wrapper(**arguments: Any) -> None:
            from potstill.config import build_config, check_student_weights, read_command

            file = arguments.pop(CONFIG_FILE)
            stored = read_command(file) if file else {}
            for key in ("method", "methods", "seeds", "cross_validate"):
                if key in arguments and arguments[key] is None:
                    arguments[key] = stored.get(key)
            values = {each.name: arguments.pop(each.name) for each in chosen}
            settings = build_config(values, file=file)
            check_student_weights(settings)
            command(**arguments, settings=settings)

        own = [
            parameter.replace(annotation=annotation)
            for (name, parameter), annotation in zip(
                inspect.signature(command).parameters.items(),
                typing.get_type_hints(command, include_extras=True).values(),
                strict=False,
            )
            if name != "settings"
        ]
        config = inspect.Parameter(
            CONFIG_FILE,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[Path | None, typer.Option(help="YAML file with settings; options win over it.")],
        )
        options = [
            inspect.Parameter(
                each.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_annotation(each, hints)
            )
            for each in chosen
        ]
        parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own] + [config, *options]
        wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return wrapper

    return decorate


def _annotation(each: Any, hints: dict[str, Any]) -> Any:
    """The typer annotation of one field; values are checked later, all at once."""
    kind = hints[each.name]
    if typing.get_origin(kind) in (Union, types.UnionType):
        kind = next(part for part in typing.get_args(kind) if part is not type(None))
    if typing.get_origin(kind) is Literal:
        kind = str
    name = "--" + each.name.replace("_", "-")
    if kind is bool:
        name += "/--no-" + each.name.replace("_", "-")
    shown = "" if each.default is None or kind is bool else f" [default: {each.default}]"
    return Annotated[kind | None, typer.Option(name, help=each.metadata["help"] + shown, show_default=False)]
