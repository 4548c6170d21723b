"""What do the levers of accuracy cost in time?"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from potstill.training.mixing import mixed
from potstill.training.optimization import Optimization
from potstill.training.state import TrainingState
from training_sections.timing import compared, interleaved_steps
from training_sections.workload import (
    STUDENT,
    Run,
    answers_of,
    distillation_objective,
    distilled_run,
    seconds_of_step,
    zoo_of,
)

STEPS = 10  # measured, of each lever in a round
PLAIN = "distillation without levers"
AVERAGES = 10


def measure_levers(rounds: int) -> dict[str, Any]:
    """The section `levers_cost` of the record; about 2 minutes on two cores."""
    runs = _runs()
    calls: dict[str, Callable[[], float]] = {name: partial(seconds_of_step, run, STEPS) for name, run in runs.items()}
    calls["averaged weights, alone"] = partial(seconds_of_average, runs[PLAIN])
    timed = interleaved_steps(calls, rounds)
    # Every step averages the weights, so that a step without is that of the loop less this part.
    average, whole = (timed["median_seconds"][name] for name in ("averaged weights, alone", PLAIN))
    over_plain = {name: compared(timed, name, PLAIN) for name in runs if name != PLAIN}
    for name, each in over_plain.items():
        print(f"{name:28s} {each['ratio']:.3f}x", flush=True)
    print(f"averaged weights             {whole / (whole - average):.3f}x", flush=True)
    return {
        "student": STUDENT,
        "sources": 28,
        "steps_a_round": STEPS,
        **timed,
        "over_plain": over_plain,
        "averaged_weights_over_none": whole / (whole - average),
    }


def _runs() -> dict[str, Run]:
    zoo = zoo_of(89)
    plain = distilled_run(zoo)
    sources = len(zoo)
    return {
        PLAIN: plain,
        "label smoothing": replace(plain, objective=distillation_objective(sources, label_smoothing=0.1)),
        "mixup": replace(plain, objective=mixed(distillation_objective(sources), alpha=0.2)),
        "standardised logits": distilled_run(
            zoo,
            answers=answers_of(zoo, standardise=True),
            objective=distillation_objective(sources, standardise=True),
        ),
        "confidence of sources": distilled_run(zoo, answers=answers_of(zoo, confidence="entropy")),
        "answers of 4 stored views": distilled_run(zoo, answers=answers_of(zoo, views=4)),
        "balanced classes": distilled_run(zoo, balanced=True),
    }


def seconds_of_average(run: Run) -> float:
    """Seconds of one update of the averaged weights."""
    state = TrainingState(run.build(), Optimization(steps=1, compute=run.compute))
    state.average.update(state.student.model)  # the first one copies
    started = time.perf_counter()
    for _ in range(AVERAGES):
        state.average.update(state.student.model)
    return (time.perf_counter() - started) / AVERAGES
