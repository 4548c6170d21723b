"""Every method by name: which rows a step takes, which source weights it uses, which labels it may read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from potstill.config import RunConfig
from potstill.errors import UsageError, unknown_name
from potstill.training.batches import BatchPlan

WITHOUT, ONLY, SHUFFLED, VARIANT = "-without-", "-only-", "-shuffled", "+"


def _labeled_rows(config: RunConfig) -> BatchPlan:
    return BatchPlan(labeled=config.batch_size)


def _labeled_and_pool_rows(config: RunConfig) -> BatchPlan:
    labeled = max(1, config.batch_size // 3)
    return BatchPlan(labeled=labeled, pool_weak=config.batch_size - labeled)


def _fixmatch_rows(config: RunConfig) -> BatchPlan:
    # labeled + ratio * labeled strong views + ratio * labeled weak views at a third each fill the batch's budget.
    labeled = max(1, int(config.batch_size / (1 + config.unlabeled_ratio * 4 / 3)))
    pool = labeled * config.unlabeled_ratio
    return BatchPlan(labeled=labeled, pool_weak=pool, pool_strong=pool, forward_only_weak=True)


def _labeled_and_strong_rows(config: RunConfig) -> BatchPlan:
    labeled = max(1, config.batch_size // 3)
    return BatchPlan(labeled=labeled, pool_strong=config.batch_size - labeled)


@dataclass(frozen=True)
class Method:
    """How a method is trained.

    `rows` gives the rows of a step, None for a method without gradients; `scheme` says how scores become source
    weights ("config" for the configured scheme), None for a method without sources. `taught_by` says who gives every
    pool image probabilities of the target's classes before the student trains: the stack of the sources, or a student
    that learnt the labels alone. `starts_at_source`: the student's initial weights are those of the best-ranked source
    of its architecture, or, if it `becomes_source`, of the best-ranked source, whose architecture and input it takes:
    a reference, since that student costs what the source costs. `reads_hidden_labels`: all labels of the pool are
    visible to it. `chooses`: it stands for another method, which is chosen on the label draw.
    """

    rows: Callable[[RunConfig], BatchPlan] | None
    scheme: str | None = None
    taught_by: Literal["stack", "student"] | None = None
    starts_at_source: bool = False
    becomes_source: bool = False
    reads_hidden_labels: bool = False
    chooses: bool = False

    @property
    def imitates(self) -> bool:
        """Whether the student learns each source's answers over the source's own classes."""
        others = self.taught_by is not None or self.starts_at_source or self.chooses
        return self.scheme is not None and not others


METHODS: dict[str, Method] = {
    "transfer": Method(_labeled_rows),
    "probe": Method(None),
    "pseudo-label": Method(_labeled_and_pool_rows),
    "fixmatch": Method(_fixmatch_rows),
    "softmatch": Method(_fixmatch_rows),
    "nearest": Method(_labeled_and_pool_rows, scheme="nearest"),
    "equal": Method(_labeled_and_pool_rows, scheme="equal"),
    "weighted": Method(_labeled_and_pool_rows, scheme="config"),
    "stacked": Method(_labeled_and_strong_rows, scheme="equal", taught_by="stack"),
    "self-distilled": Method(_labeled_and_strong_rows, taught_by="student"),
    "start-nearest": Method(_labeled_rows, scheme="equal", starts_at_source=True),
    "source-finetune": Method(_labeled_rows, scheme="equal", starts_at_source=True, becomes_source=True),
    "ceiling": Method(_labeled_rows, reads_hidden_labels=True),
    "auto": Method(_labeled_and_strong_rows, scheme="equal", chooses=True),
}


@dataclass(frozen=True)
class MethodChoice:
    """A method as the user wrote it.

    `METHOD+VARIANT` is the method with the settings that `overrides` has under this name, so that one comparison can
    hold a method several times. `METHOD-without-SOURCE` leaves a source out, `METHOD-only-SOURCE` uses no other.
    `METHOD-shuffled` is a control: the sources' answers belong to other images, so that they cannot tell the student
    anything about what it sees.
    """

    name: str
    base: str
    method: Method
    left_out: str | None = None
    only: str | None = None
    shuffled: bool = False


def parse_method(name: str) -> MethodChoice:
    """Look a method up.

    Raises:
        UnknownNameError: no such method.
        UsageError: something is said about the sources of a method that uses none.
    """
    plain, plus, variant = name.partition(VARIANT)
    if plus and not variant:
        raise UsageError(
            f"'{name}' names no variant. Use for instance {plain}{VARIANT}long, with overrides of that name."
        )
    base, _, left_out = plain.partition(WITHOUT)
    base, _, only = (base, "", "") if left_out else base.partition(ONLY)
    shuffled = base.endswith(SHUFFLED)
    base = base.removesuffix(SHUFFLED)
    if base not in METHODS:
        raise unknown_name("method", base, METHODS)
    method = METHODS[base]
    if base != plain and method.scheme is None:
        raise UsageError(
            f"'{name}' says something about sources, but {base} uses no sources. "
            f"Use for instance weighted{WITHOUT}NAME."
        )
    if shuffled and method.starts_at_source:
        raise UsageError(f"'{name}' shuffles what sources say of images, but {base} takes a source's weights alone.")
    return MethodChoice(name, base, method, left_out or None, only or None, shuffled)
