"""How related the sources are, and the weights that follow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

DECIDED = 0.95  # probability from which the first place counts as decided
SIGNIFICANT = 0.05  # p-value up to which a source counts as related


@dataclass(frozen=True)
class MetricScore:
    """One metric of one source: a finite score, higher is better, or None and the reason why there is none."""

    score: float | None
    error: str | None = None
    ci95: tuple[float, float] | None = None


@dataclass(frozen=True)
class RankedSource:
    """One row of a ranking. `score` is that of the ranking's metric; None if it or the source failed (`error`).

    `scores` holds all metrics, that of the ranking first. `baselines` are what is known without any image: a metric
    that ranks no better than they do is not needed. `rank_probabilities` `(S,)`, of the sources that have a score, sum
    to one; `p_value` is the probability that shuffled labels give some source of the zoo a score as remarkable. Both
    are None where the scoring set is too small to tell.
    """

    name: str
    score: float | None
    scores: Mapping[str, MetricScore]
    seconds: float
    error: str | None = None
    baselines: Mapping[str, float] = field(default_factory=dict)
    rank_probabilities: tuple[float, ...] | None = None
    p_value: float | None = None


@dataclass(frozen=True)
class Ranking:
    """The sources, best first by `metric`; those that failed come last.

    `tied_with_first` are the sources that cannot be told apart from the first one, and `resamples` and `permutations`
    what that and the p-values rest on: 0 where the scoring set is too small, or none were asked for. `agreement` is
    Kendall's tau between every two metrics and baselines, None where it is not defined.
    """

    metric: str
    scoring_images: int
    sources: tuple[RankedSource, ...]
    tied_with_first: tuple[str, ...] = ()
    resamples: int = 0
    permutations: int = 0
    agreement: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)

    def scores(self) -> dict[str, float]:
        """name -> score of the sources that have one, best first."""
        return {row.name: row.score for row in self.sources if row.score is not None}

    @property
    def decided(self) -> bool | None:
        """Whether the first place is decided: no source is tied with the first, which leads with probability 0.95.

        None if nobody can tell: no resamples, or nothing to compare with.
        """
        first = self.sources[0].rank_probabilities if self.sources else None
        if first is None or len(first) < 2:
            return None
        return first[0] >= DECIDED and not self.tied_with_first

    @property
    def related(self) -> bool | None:
        """Whether any source is related at all: some p-value is at most 0.05; None if nobody can tell."""
        known = [row.p_value for row in self.sources if row.p_value is not None]
        if not known or (self.permutations + 1) * SIGNIFICANT < 1:  # too few to show a small p-value
            return None
        return min(known) <= SIGNIFICANT


@dataclass(frozen=True)
class SourceWeights:
    """A point on the simplex over sources: non-negative, sums to one."""

    scheme: str
    values: Mapping[str, float]

    def __post_init__(self) -> None:
        weights = list(self.values.values())
        if not weights or min(weights) < 0 or abs(sum(weights) - 1) > 1e-9:
            raise ValueError(f"source weights must be non-negative and sum to 1, got {dict(self.values)}")

    @property
    def used(self) -> tuple[str, ...]:
        """The sources that have a weight above 0."""
        return tuple(name for name, weight in self.values.items() if weight > 0)

    @property
    def effective_sources(self) -> float:
        """1 / sum a_s^2: the number of equally weighted sources that would be as spread out."""
        return 1.0 / sum(weight * weight for weight in self.values.values())
