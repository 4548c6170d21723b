"""What does a step with 28 sources cost beside a plain cross-entropy step of the same student?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from potstill.evaluation import model_cost
from training_sections.memory import measure_memory
from training_sections.photos import IMAGE_SIZE
from training_sections.timing import compared, interleaved_steps, milliseconds
from training_sections.workload import (
    BATCH,
    DISTILLED,
    STUDENT,
    ZOOS,
    distilled_run,
    measured_compute,
    seconds_of_step,
    student_for,
    supervised_run,
)

STEPS: Mapping[str, tuple[int, int]] = {
    # student -> measured steps of each variant in a round, and rounds for each one asked for; turns must be short, as
    # the machine gets faster and slower within seconds
    STUDENT: (5, 2),
    "timm/tf_efficientnet_lite0": (1, 1),
    "timm/test_efficientnet": (5, 1),
}
GOALS = {"2,492 classes": 1.05, "7,980 classes": 1.20}
MEMORY_GOAL = 1.15


def measure_step(rounds: int) -> dict[str, Any]:
    """The section `step` of the record; 10 minutes on two cores."""
    students = {name: _against_plain(name, steps, rounds * more) for name, (steps, more) in STEPS.items()}
    for zoo, goal in GOALS.items():
        cost = students[STUDENT]["over_plain"][zoo]
        cost.update(goal=goal, reached=cost["ratio"] <= goal)
    return {
        "batch": BATCH,
        "image_size": IMAGE_SIZE,
        "labeled_and_pool_rows": (DISTILLED.labeled, DISTILLED.pool_weak),
        "sources": 28,
        "source_classes": {name: sum(zoo.values()) for name, zoo in ZOOS.items()},
        "students": students,
        "memory": measure_memory(tuple(ZOOS), MEMORY_GOAL, judged=tuple(GOALS)),
    }


def _against_plain(name: str, steps: int, rounds: int) -> dict[str, Any]:
    compute = measured_compute(name)
    runs = {"plain": supervised_run(name, compute=compute)}
    runs |= {title: distilled_run(zoo, name, compute=compute) for title, zoo in ZOOS.items()}
    calls: dict[str, Callable[[], float]] = {title: partial(seconds_of_step, run, steps) for title, run in runs.items()}
    timed = interleaved_steps(calls, rounds)
    over_plain = {title: compared(timed, title, "plain") for title in ZOOS}
    print(f"{name:28s} {milliseconds(timed)}; {_ratios(over_plain)}", flush=True)
    return {
        "compute": compute.name,
        **model_cost(student_for(name).model, IMAGE_SIZE),
        "steps_a_round": steps,
        **timed,
        "over_plain": over_plain,
    }


def _ratios(over_plain: Mapping[str, Mapping[str, float]]) -> str:
    return ", ".join(f"{title} {each['ratio']:.3f}x" for title, each in over_plain.items())
