"""Write the mini zoo's zoo file and cards from the figures that training left in benchmarks/results/mini_zoo.json."""

from __future__ import annotations

import json
from typing import Any

import yaml
from catalogue import RECIPES, Recipe
from few_shot import RESULTS, STUDENT
from train_sources import ZOO

HEADER = "# The embedded mini zoo, written by benchmarks/mini_zoo/write_zoo.py. A card of each source lies in cards/.\n"


def zoo_entry(name: str, recipe: Recipe, figures: dict[str, Any]) -> dict[str, Any]:
    """One source in the format of a zoo file."""
    entry: dict[str, Any] = {
        "name": name,
        "model": f"timm/{figures['architecture']}",
        "weights": f"{name}.safetensors",
        "num_classes": len(figures["classes"]),
        "image_size": 32,
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "interpolation": "bilinear",
        "license": recipe.license,
        "trained_on": recipe.trained_on,
        "accuracy": {"value": figures["accuracy"], "on": measured_on(recipe, figures)},
        "sha256": figures["sha256"],
    }
    if figures["classes"]:
        entry["classes"] = figures["classes"]
    return entry


def measured_on(recipe: Recipe, figures: dict[str, Any]) -> str:
    """What the accuracy of a source was measured on."""
    count = figures["pictures"]["test"]
    if recipe.headless:
        return f"its own held-out part: a varied copy of each of {count} pictures finds the original"
    return f"its own held-out part: {count} pictures"


def source_card(name: str, recipe: Recipe, figures: dict[str, Any]) -> str:
    """The card of one source, in Markdown."""
    pictures, groups, versions = figures["pictures"], figures["groups"], figures["versions"]
    classes = f"{len(figures['classes'])}" if figures["classes"] else "none (the classifier over pictures was dropped)"
    return f"""# {name}

| | |
|---|---|
| model | timm/{figures["architecture"]}, {figures["params"]:,} parameters, float16, {figures["bytes"]:,} bytes |
| trained on | {recipe.trained_on} |
| classes | {classes} |
| data | {recipe.origin} |
| data licence | {recipe.license} |
| trained with | {pictures["source"]:,} pictures of {groups["source"]:,} groups (source side) |
| length | {figures["passes"]:,} varied copies |
| held-out part | {pictures["test"]:,} pictures of {groups["test"]:,} groups (test side) |
| accuracy | {figures["accuracy"]:.4f} on {measured_on(recipe, figures)} |
| chance | {figures["chance"]} |
| command | `python benchmarks/mini_zoo/train_sources.py --only {name}` |
| seed, versions | {figures["seed"]}; torch {versions["torch"]}, timm {versions["timm"]}, Pillow {versions["pillow"]} |
| sha256 | `{figures["sha256"]}` |

Images are 32 x 32, scaled to [0, 1], then mean 0.5 and standard deviation 0.5. The accuracy is that of the stored
float16 weights on pictures without variation. Groups (type families, code points, file names; single pictures where
writers are unknown) never lie on two sides. None of the demo's images was used.
"""


def student_card(figures: dict[str, Any]) -> str:
    """The card of the generic student weights, in Markdown."""
    versions = figures["versions"]
    return f"""# Generic student weights

| | |
|---|---|
| model | timm/{figures["architecture"]} without classifier, {figures["params"]:,} parameters, float16 |
| trained on | {figures["pictures"]:,} drawings of {figures["recipes"]:,} invented shapes: strokes, loops, outlines |
| not trained on | any typeface, handwriting or symbol set |
| task | tell the shapes apart from varied drawings, {figures["passes"]:,} copies; the classifier was dropped |
| data licence | none needed: drawn by `benchmarks/mini_zoo/strokes.py` |
| command | `python benchmarks/mini_zoo/train_student.py` |
| seed, versions | {figures["seed"]}; torch {versions["torch"]}, timm {versions["timm"]} |
| sha256 | `{figures["sha256"]}` |

Accuracy of fine-tuning on a handful of labels, mean of {figures["few_shot"]["draws"]} label draws
(`python benchmarks/mini_zoo/few_shot.py`); the weights were chosen by the first task, never by the demo's digits:

| task | labels | logistic regression on 64 pixels | random start | generic start |
|---|---|---|---|---|
{few_shot_rows(figures["few_shot"]["tasks"])}
"""


def few_shot_rows(tasks: dict[str, dict[str, dict[str, float]]]) -> str:
    """Rows of the table of label-poor fine-tuning."""
    names = ("logistic regression", "random start", "generic start")
    return "\n".join(
        f"| {task} | {labels} | " + " | ".join(f"{means[name]:.3f}" for name in names) + " |"
        for task, rows in tasks.items()
        for labels, means in rows.items()
    )


def main() -> None:
    results = json.loads(RESULTS.read_text())
    (ZOO / "cards").mkdir(parents=True, exist_ok=True)
    entries = []
    for name, recipe in RECIPES.items():
        if name not in results["sources"]:
            print(f"{name} is not trained yet and is left out")
            continue
        figures = results["sources"][name]
        entries.append(zoo_entry(name, recipe, figures))
        (ZOO / "cards" / f"{name}.md").write_text(source_card(name, recipe, figures))
    text = yaml.safe_dump({"sources": entries}, sort_keys=False, width=110, default_flow_style=None)
    (ZOO / "zoo.yaml").write_text(HEADER + text)
    if "student" in results:
        STUDENT.with_suffix(".md").write_text(student_card(results["student"]))


if __name__ == "__main__":
    main()
