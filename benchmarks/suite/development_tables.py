"""Tables of docs/results.md that tell how our method and the settings were found: development targets alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from suite.estimates import read_table
from tables import UNMEASURED, table


def sweep_table(folder: Path) -> str:
    """Mean over the development targets of every trial that was finished on all of them."""
    whole = read_table(folder)
    if not whole.targets:
        return UNMEASURED
    means = whole.means()
    numbers = ("1", "2", "3")
    rows = [
        [f"`{method}`", *(f"{means[f'{method}+{n}']:.1f}" if f"{method}+{n}" in means else "" for n in numbers)]
        for method in dict.fromkeys(name.partition("+")[0] for name in whole.methods if "+" in name)
    ]
    if "ceiling" in means:
        rows.append(["`ceiling`, not tuned", f"{means['ceiling']:.1f}", "", ""])
    return table(["method", *(f"trial {number}" for number in numbers)], rows)


def trials_table(file: Path) -> str:
    if not file.exists():
        return UNMEASURED
    trials = json.loads(file.read_text(encoding="utf-8"))["trials"]
    targets = sorted({target for each in trials for target in each["accuracy"]})
    rows = [
        [
            each["what"],
            *(f"{100 * each['accuracy'][target]:.1f}" if target in each["accuracy"] else "" for target in targets),
        ]
        for each in trials
    ]
    return table(["what differed", *targets], rows)


def stack_weights_table(file: Path) -> str:
    """Mean test accuracy over development targets of every scheme, and that of each target."""
    if not file.exists():
        return UNMEASURED
    found = json.loads(file.read_text(encoding="utf-8"))["rows"]
    share, count = ([row for row in found if key in row] for key in ("label_fraction", "labels_per_class"))
    rows = []
    for scheme in found[0]["accuracy"]:
        means = [np.mean([row["accuracy"][scheme] for row in rows_of]) for rows_of in (share, count)]
        each = [row["accuracy"][scheme] for row in share]
        rows.append([f"`{scheme}`", *(f"{100 * value:.1f}" for value in (*means, *each))])
    titles = ["weight of a source", "mean, 20 %", "mean, 4 a class", *(f"{row['target']}, 20 %" for row in share)]
    return table(titles, rows)


def guard_table(file: Path) -> str:
    """On how many label draws each zoo predicts held-out labels better than the student's own features."""
    if not file.exists():
        return UNMEASURED
    found = [row["held_out_loss"] for row in json.loads(file.read_text(encoding="utf-8"))["rows"]]
    rows = []
    for zoo in ("all", "unrelated", "shuffled"):
        shares = [loss[zoo] / loss["own"] for loss in found]
        better = sum(share < 1 for share in shares)
        rows.append(
            [zoo, f"{better} of {len(shares)}", f"{min(shares):.2f}", f"{np.median(shares):.2f}", f"{max(shares):.2f}"]
        )
    return table(["sources", "`stacked` is chosen", "least", "median", "largest"], rows)


def check_table(file: Path) -> str:
    """Accuracy of our FixMatch and another library's, and how far their losses differ on equal weights and batches."""
    if not file.exists():
        return UNMEASURED
    found = json.loads(file.read_text(encoding="utf-8"))["rows"]
    rows = [
        [
            each["target"],
            str(each["seed"]),
            f"{100 * each['ours']:.1f}",
            f"{100 * each['usb']:.1f}",
            f"{max(each['loss_differences']):.0e}",
        ]
        for each in found
    ]
    ours, theirs = (100 * np.mean([each[name] for each in found]) for name in ("ours", "usb"))
    rows.append(["mean", "", f"{ours:.1f}", f"{theirs:.1f}", ""])
    return table(["target", "label draw", "ours", "USB", "largest difference of losses"], rows)
