"""`potstill cache` and `potstill zoo`: what is kept and what there is to ask."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from potstill.cli.display import messages, print_json, results, shown_progress
from potstill.cli.options import Data, Json, Output, takes_config
from potstill.config import RunConfig, build_config
from potstill.errors import CacheError, SourceError, UsageError

cache = typer.Typer(help="Answers of sources on disk: fill, list, check, repair, prune, export.", no_args_is_help=True)
zoo = typer.Typer(help="Zoos and their sources: list, check.", no_args_is_help=True)

CacheDir = Annotated[
    Path | None, typer.Option("--cache-dir", help="Where source outputs are kept (POTSTILL_CACHE_DIR).")
]

Licenses = Annotated[str, typer.Option(help="any, or permissive: known permissive licences alone.")]


def _cache_dir(given: Path | None) -> Path:
    from potstill.cache import default_cache_dir

    return given or default_cache_dir()


@cache.command("fill")
@takes_config("data", "zoo", "machine")
def fill(
    data: Data,
    settings: RunConfig,
    part: Annotated[
        str | None,
        typer.Option(
            metavar="I/N",
            help="Every n-th part of the rows, from the i-th (from 0).  [default: from torchrun or SLURM]",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Measure a batch of each source and say what it would take.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Ask the sources about all images of DATA, by one process or by many that share the cache directory."""
    from potstill.pipeline.cache_filling import ask_sources, forecast_asking, part_of_process
    from potstill.reporting.tables import filled_table, forecast_table

    with shown_progress() as progress:
        if dry_run:
            record = forecast_asking(data, config=settings, progress=progress)
        else:
            record = ask_sources(data, config=settings, part=part_of_process(part), progress=progress)
    if as_json:
        print_json(record)
    else:
        results.print(forecast_table(record) if dry_run else filled_table(record))
    failed = [row["name"] for row in record["sources"] if row["error"]]
    for row in record["sources"]:
        if row["error"] and not as_json:
            messages.print(f"{row['name']}: {row['error']}", markup=False, soft_wrap=True)
    if len(failed) == len(record["sources"]):
        raise typer.Exit(SourceError.exit_code)


@cache.command("ls")
def list_cache(cache_dir: CacheDir = None, as_json: Json = False) -> None:
    """Every entry: source, view, rows, size and when it was last used."""
    from potstill.cache import cache_summary

    folder = _cache_dir(cache_dir)
    entries = cache_summary(folder)
    if as_json:
        print_json({"schema": 1, "entries": [asdict(entry) for entry in entries], "files": _sizes(folder)})
        return
    from potstill.reporting.tables import cache_table

    results.print(cache_table([asdict(entry) for entry in entries], now=time.time()))
    beside = {name: size for name, size in _sizes(folder).items() if name != "outputs"}
    told = ", ".join(f"{name} {size / 2**20:.1f} MiB" for name, size in beside.items() if size)
    results.print(f"Beside source outputs: {told or 'nothing'}.", markup=False)


@cache.command("verify")
def verify(cache_dir: CacheDir = None, as_json: Json = False) -> None:
    """Read every file and compare it with its checksum; exit code 5 if one is damaged."""
    from potstill.cache import verify_cache

    damaged = verify_cache(_cache_dir(cache_dir))
    if as_json:
        print_json({"schema": 1, "damaged": _damaged(damaged)})
        raise typer.Exit(CacheError.exit_code if damaged else 0)
    if not damaged:
        results.print("Every file of the cache is as it was written.")
    else:
        lines = "".join(f"\n  {file.reason}" for file in damaged)
        raise CacheError(f"{len(damaged)} files are damaged; `potstill cache repair` removes them.{lines}")


@cache.command("repair")
def repair(cache_dir: CacheDir = None, as_json: Json = False) -> None:
    """Remove what is damaged; the next command computes those rows again."""
    from potstill.cache import repair_cache

    damaged = repair_cache(_cache_dir(cache_dir))
    if as_json:
        print_json({"schema": 1, "removed": _damaged(damaged)})
        return
    for file in damaged:
        results.print(f"removed {file.path.parent.name[:12]}/{file.path.name}", markup=False)
    results.print(f"{len(damaged)} damaged files were removed." if damaged else "Nothing is damaged.")


@cache.command("prune")
def prune(
    cache_dir: CacheDir = None,
    source: Annotated[list[str] | None, typer.Option(help="Entries of this source; may be repeated.")] = None,
    unused_days: Annotated[float | None, typer.Option(help="Entries not used for so many days.", min=0)] = None,
    stale: Annotated[
        bool, typer.Option("--stale", help="Entries that another version of Pillow made; no command reads them.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and delete nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Delete entries: of a source, unused ones, stale ones."""
    from potstill.cache import prune_cache

    if not (source or stale or unused_days is not None):
        raise UsageError("Say which entries: --source NAME, --unused-days N, --stale; --dry-run only shows them.")
    gone = prune_cache(
        _cache_dir(cache_dir), sources=source or (), unused_days=unused_days, stale=stale, dry_run=dry_run
    )
    if as_json:
        print_json({"schema": 1, "dry_run": dry_run, "entries": [asdict(entry) for entry in gone]})
        return
    for entry in gone:
        results.print(
            f"{entry.source}, view {entry.view}: {entry.rows} rows, {entry.size / 2**20:.1f} MiB", markup=False
        )
    size = sum(entry.size for entry in gone) / 2**20
    results.print(f"{len(gone)} entries, {size:.1f} MiB {'would go' if dry_run else 'are gone'}.")


@cache.command("export")
@takes_config("data", "zoo", "machine")
def export(data: Data, output: Output, settings: RunConfig, as_json: Json = False) -> None:
    """What the sources say about DATA as .npy files, with a zoo file that uses them as sources."""
    from potstill.pipeline.exchange import export_answers

    with shown_progress() as progress:
        record = export_answers(data, output, config=settings, progress=progress)
    if as_json:
        print_json(record)
        return
    for row in record["sources"]:
        results.print(f"{row['name']}: {row['feature_dim']} features, {row['num_classes']} classes", markup=False)
    results.print(f"{record['images']} images: {output / 'zoo.yaml'}", markup=False, soft_wrap=True)


@zoo.command("list")
def list_zoo(
    name: Annotated[str | None, typer.Argument(metavar="ZOO", help="A zoo file or name; none: all names.")] = None,
    licenses: Licenses = "any",
    as_json: Json = False,
) -> None:
    """The built-in zoos, or the sources of one: model, licence, size, what it was trained on."""
    from potstill.pipeline.zoo_listing import list_sources, list_zoos
    from potstill.reporting.tables import sources_table, zoos_table

    record = list_zoos() if name is None else list_sources(build_config({"zoo": name, "licenses": licenses}))
    if as_json:
        print_json(record)
    else:
        results.print(zoos_table(record) if name is None else sources_table(record))


@zoo.command("check")
def check_zoo(
    name: Annotated[str, typer.Argument(metavar="ZOO", help="A zoo file, or the name of a built-in zoo.")],
    licenses: Licenses = "any",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    offline: Annotated[bool, typer.Option("--offline", help="Never touch a network.")] = False,
    as_json: Json = False,
) -> None:
    """Open every source of a zoo and ask it about blank images; exit code 4 if one cannot be asked."""
    from potstill.pipeline.zoo_listing import check_sources
    from potstill.reporting.tables import checked_sources_table

    settings = build_config({"zoo": name, "licenses": licenses, "device": device, "offline": offline})
    with shown_progress() as progress:
        record = check_sources(settings, progress=progress)
    failed = {row["name"]: row["error"] for row in record["sources"] if row["error"]}
    if as_json:
        print_json(record)
        raise typer.Exit(SourceError.exit_code if failed else 0)
    results.print(checked_sources_table(record))
    for each, reason in failed.items():
        messages.print(f"{each}: {reason}", markup=False, soft_wrap=True)
    if failed:
        raise SourceError(f"{len(failed)} of {len(record['sources'])} sources cannot be asked: {', '.join(failed)}.")


def _damaged(files: Any) -> list[dict[str, str]]:
    return [{"file": f"{file.path.parent.name}/{file.path.name}", "reason": file.reason} for file in files]


def _sizes(cache_dir: Path) -> dict[str, int]:
    """Bytes below each folder of the cache."""
    folders = sorted(path for path in cache_dir.iterdir() if path.is_dir()) if cache_dir.is_dir() else []
    return {folder.name: sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) for folder in folders}
