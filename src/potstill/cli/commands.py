"""Every command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from potstill.cli import housekeeping
from potstill.cli.display import messages, print_json, results, shown_progress
from potstill.cli.options import Data, Json, Output, Overwrite, Resume, takes_config
from potstill.cli.printing import print_comparison, print_outcome, print_ranking, stored
from potstill.config import RunConfig

app = typer.Typer(
    name="potstill",
    help="Rank trained models by how related they are to your images, and distil them into one small classifier.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

app.add_typer(housekeeping.cache, name="cache")
app.add_typer(housekeeping.zoo, name="zoo")

DEFAULT_METHODS = "transfer,probe,fixmatch,nearest,equal,weighted,stacked,ceiling"


def _show_version(asked: bool) -> None:
    if asked:
        from potstill import __version__

        results.print(f"potstill {__version__}")
        raise typer.Exit


@app.callback()
def options_of_all_commands(
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show it.")] = False,
) -> None:
    """Rank trained models by how related they are to your images, and distil them into one small classifier."""


@app.command()
def demo(
    output: Output = Path("runs/demo"),
    seeds: Annotated[int, typer.Option(help="Label draws.", min=1)] = 5,
    overwrite: Overwrite = False,
    resume: Resume = False,
    as_json: Json = False,
) -> None:
    """The whole pipeline on scanned digits and the mini zoo: offline, on a CPU, in about three minutes."""
    from potstill.pipeline.demonstration import demonstrate

    with shown_progress() as progress:
        outcome = demonstrate(output, seeds=seeds, overwrite=overwrite, resume=resume, progress=progress)
    if as_json:
        print_json(outcome)
        return
    print_ranking(stored(output, "ranking.json"))
    print_comparison(outcome, output)


@app.command()
@takes_config("data", "zoo", "weights", "student", "training", "machine")
def run(
    data: Data,
    output: Output,
    settings: RunConfig,
    method: Annotated[str | None, typer.Option(help="A method, or auto.  [default: auto]")] = None,
    cross_validate: Annotated[
        bool | None,
        typer.Option("--cross-validate/--no-cross-validate", help="Default: where the test part is small."),
    ] = None,
    overwrite: Overwrite = False,
    resume: Resume = False,
    as_json: Json = False,
) -> None:
    """From a folder of images to an evaluated student and a report."""
    from potstill.pipeline import run as run_pipeline

    with shown_progress() as progress:
        outcome = run_pipeline(
            data,
            output,
            config=settings,
            method=method or "auto",
            cross_validate=cross_validate,
            overwrite=overwrite,
            resume=resume,
            progress=progress,
        )
    if as_json:
        print_json(outcome)
        return
    print_ranking(stored(output, "ranking.json"))
    for sentence in outcome["findings"]:
        results.print(f"- {sentence}", markup=False)
    print_outcome(outcome, output)


@app.command()
@takes_config("data", "zoo", "machine")
def rank(
    data: Data,
    settings: RunConfig,
    scoring_only: Annotated[
        bool, typer.Option("--scoring-only", help="Run the sources on the scored images alone: a quick first look.")
    ] = False,
    as_json: Json = False,
) -> None:
    """How related is each source of the zoo to the target?"""
    from potstill.pipeline.ranking import rank_zoo

    with shown_progress() as progress:
        record = rank_zoo(data, config=settings, scoring_only=scoring_only, progress=progress)
    if as_json:
        print_json(record)
    else:
        print_ranking(record)


@app.command()
@takes_config("data", "zoo", "weights", "student", "training", "machine")
def distill(
    data: Data,
    output: Output,
    settings: RunConfig,
    method: Annotated[
        str | None, typer.Option(help="nearest, equal, or a rival: transfer, probe, ...  [default: weighted]")
    ] = None,
    overwrite: Overwrite = False,
    resume: Resume = False,
    as_json: Json = False,
) -> None:
    """Train one student by one method."""
    from potstill.pipeline.single_student import train_single

    with shown_progress() as progress:
        outcome = train_single(
            data,
            output,
            config=settings,
            method=method or "weighted",
            overwrite=overwrite,
            resume=resume,
            progress=progress,
        )
    if as_json:
        print_json(outcome)
    else:
        print_outcome(outcome, output)


@app.command()
@takes_config("data", "zoo", "weights", "student", "training", "machine")
def compare(
    data: Data,
    output: Output,
    settings: RunConfig,
    methods: Annotated[
        str | None,
        typer.Option(
            help=f"Comma-separated; also METHOD-(without|only)-SOURCE, METHOD-shuffled.  [default: {DEFAULT_METHODS}]"
        ),
    ] = None,
    seeds: Annotated[int | None, typer.Option(help="Label draws: seeds 0 .. K-1.  [default: 3]", min=1)] = None,
    overwrite: Overwrite = False,
    resume: Resume = False,
    as_json: Json = False,
) -> None:
    """Methods side by side on the same label draws and budget, with paired statistics."""
    from potstill.pipeline import compare as compare_methods

    with shown_progress() as progress:
        outcome = compare_methods(
            data,
            output,
            config=settings,
            methods=methods if isinstance(methods, list) else (methods or DEFAULT_METHODS).replace(" ", "").split(","),
            seeds=seeds or 3,
            overwrite=overwrite,
            resume=resume,
            progress=progress,
        )
    if as_json:
        print_json(outcome)
    else:
        print_comparison(outcome, output)


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run directory.")], data: Data, as_json: Json = False
) -> None:
    """How good is a trained student on labeled data?"""
    from potstill.pipeline import evaluate as evaluate_run

    with shown_progress() as progress:
        record = evaluate_run(run, data, progress=progress)
    if as_json:
        print_json(record)
        return
    results.print(
        f"{record['run']} on {record['target']}, {record['part']} ({record['images']} images): "
        f"accuracy {100 * record['accuracy']:.1f} %, macro F1 {100 * record['macro_f1']:.1f} %, "
        f"balanced accuracy {100 * record['balanced_accuracy']:.1f} %, "
        f"calibration error {100 * record['ece']:.1f} points",
        markup=False,
    )
    if record["trained_on"]:
        messages.print(
            f"Careful: {record['trained_on']} of these images have the path of an image that the run was trained on."
        )


@app.command()
def predict(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run directory.")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGES...", help="Image files or folders.")],
    as_json: Json = False,
) -> None:
    """Classify images with a trained student: path, class and confidence, tab-separated (JSON lines with --json)."""
    import json

    from potstill.pipeline import predict as predict_images

    for row in predict_images(run, images):
        if as_json:
            results.file.write(json.dumps(row, ensure_ascii=False) + "\n")
        elif "error" in row:
            messages.print(f"{row['path']}: {row['error']}", markup=False, soft_wrap=True)
        else:
            results.file.write(f"{row['path']}\t{row['class']}\t{row['confidence']:.4f}\n")


@app.command()
def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run or compare directory.")], as_json: Json = False
) -> None:
    """Write report.html again from the files of a run."""
    from potstill.reporting import write_report

    page = write_report(run)
    if as_json:
        print_json({"schema": 1, "report": str(page)})
    else:
        results.print(f"Report: {page}", soft_wrap=True, markup=False)
