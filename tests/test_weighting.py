import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from potstill.errors import UnknownNameError, WeightingError
from potstill.types import MetricScore, RankedSource, Ranking, SourceWeights
from potstill.weighting import SCHEMES, drop_weak, weigh

FINITE = st.floats(-1e3, 1e3, allow_subnormal=False)
SCORES = st.dictionaries(st.text("abcdef", min_size=1, max_size=3), FINITE, min_size=1, max_size=8)
ZOO = {"birds": 0.30, "letters": 0.15, "icons": 0.24, "noise": -0.02}


@pytest.fixture(params=sorted(SCHEMES))
def scheme(request):
    return request.param


@given(scores=SCORES)
@pytest.mark.parametrize("scheme", sorted(SCHEMES))
def test_simplex_monotone_and_order_free(scheme, scores):
    if scheme == "power" and max(scores.values()) <= 0:
        return
    weights = weigh(scores, scheme=scheme).values
    assert list(weights) == list(scores)
    assert math.fsum(weights.values()) == pytest.approx(1.0, abs=1e-12)
    assert min(weights.values()) >= 0
    for one in scores:
        for other in scores:
            if scores[one] > scores[other]:
                assert weights[one] >= weights[other]
            if scores[one] == scores[other]:
                assert weights[one] == weights[other]
    backwards = weigh(dict(reversed(scores.items())), scheme=scheme).values
    assert backwards == weights  # bit for bit, by name


def test_power_by_hand():
    total = 1 + 0.5**6 + 0.8**6
    expected = {"birds": 1 / total, "letters": 0.5**6 / total, "icons": 0.8**6 / total, "noise": 0.0}
    assert weigh(ZOO).values == pytest.approx(expected)
    assert weigh({name: 7 * score for name, score in ZOO.items()}).values == pytest.approx(expected)


def test_limits_of_power():
    assert weigh(ZOO, power=0).values == weigh(ZOO, scheme="equal").values == dict.fromkeys(ZOO, 0.25)
    nearest = {"birds": 1.0, "letters": 0.0, "icons": 0.0, "noise": 0.0}
    assert weigh(ZOO, power=1e6).values == weigh(ZOO, scheme="nearest").values == nearest


def test_effective_sources():
    assert weigh(ZOO, power=0).effective_sources == pytest.approx(4)
    assert weigh(ZOO, scheme="nearest").effective_sources == 1


def test_softmax_ignores_scale_and_zero():
    weights = weigh(ZOO, scheme="softmax").values
    moved = weigh({name: 40 * score - 100 for name, score in ZOO.items()}, scheme="softmax").values
    assert moved == pytest.approx(weights)
    # Two scores are one standard deviation either side of their mean.
    two = weigh({"a": -3.0, "b": -5.0}, scheme="softmax", temperature=2.0).values
    assert two["a"] / two["b"] == pytest.approx(math.exp(1.0))
    assert weigh({"a": 0.1, "b": 0.1, "c": 0.1}, scheme="softmax").values["a"] == pytest.approx(1 / 3)


def test_limits_of_softmax():
    assert weigh(ZOO, scheme="softmax", temperature=1e-3).values["birds"] == pytest.approx(1)
    assert weigh(ZOO, scheme="softmax", temperature=1e9).values == pytest.approx(dict.fromkeys(ZOO, 0.25))


def test_top_k():
    half = {"birds": 0.5, "letters": 0.0, "icons": 0.5, "noise": 0.0}
    assert weigh(ZOO, scheme="top-k", top_k=2).values == half
    assert weigh(ZOO, scheme="top-k", top_k=99).values == dict.fromkeys(ZOO, 0.25)
    assert weigh(ZOO, scheme="top-k", top_k=1).values == weigh(ZOO, scheme="nearest").values


def test_ties_share_the_last_places():
    tied = {"a": 2.0, "b": 1.0, "c": 1.0, "d": 0.0}
    assert weigh(tied, scheme="top-k", top_k=2).values == {"a": 0.5, "b": 0.25, "c": 0.25, "d": 0.0}
    assert weigh({"a": 1.0, "b": 1.0}, scheme="nearest").values == {"a": 0.5, "b": 0.5}


def test_one_source_gets_all_the_weight(scheme):
    assert weigh({"only": 0.3}, scheme=scheme).values == {"only": 1.0}


def test_failed_sources_of_a_ranking_are_left_out(scheme):
    ranking = Ranking(
        "parc",
        10,
        (
            RankedSource("good", 0.2, {"parc": MetricScore(0.2)}, 0.0),
            RankedSource("fair", 0.1, {"parc": MetricScore(0.1)}, 0.0),
            RankedSource("failed", None, {}, 0.0, "no weights"),
        ),
    )
    assert weigh(ranking, scheme=scheme).values == weigh({"good": 0.2, "fair": 0.1}, scheme=scheme).values


@pytest.mark.parametrize("best", [0.0, -0.7])
def test_power_without_a_positive_score_says_what_to_use(best):
    with pytest.raises(WeightingError, match="Use scheme 'softmax', 'top-k', 'nearest' or 'equal'"):
        weigh({"a": best, "b": -2.0})


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_scores_must_be_finite(scheme, score):
    with pytest.raises(WeightingError, match="broken has"):
        weigh({"fine": 0.5, "broken": score}, scheme=scheme)


def test_no_scores(scheme):
    with pytest.raises(WeightingError, match="No source has a score"):
        weigh({}, scheme=scheme)


def test_unknown_scheme():
    with pytest.raises(UnknownNameError, match="Did you mean 'softmax'"):
        weigh(ZOO, scheme="sofmax")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"power": -1.0}, "power must be"),
        ({"power": math.nan}, "power must be"),
        ({"power": math.inf}, "use 'nearest'"),
        ({"temperature": 0.0}, "temperature must be"),
        ({"temperature": math.nan}, "temperature must be"),
        ({"top_k": 0}, "top_k must be"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(WeightingError, match=message):
        weigh(ZOO, **options)


def test_weak_sources_lose_their_weight_to_the_others_in_proportion():
    weights = SourceWeights("power", {"a": 0.6, "b": 0.39, "c": 0.007, "d": 0.003})
    kept = drop_weak(weights, minimum=0.01).values
    assert kept["d"] == 0.0
    assert [kept[name] for name in "abc"] == pytest.approx([0.6 / 0.997, 0.39 / 0.997, 0.007 / 0.997])
    assert drop_weak(weights, minimum=0).values == weights.values
    assert list(drop_weak(weights, minimum=1).values.values()) == [1.0, 0.0, 0.0, 0.0]


def test_equal_sources_are_never_weak_however_many():
    weights = SourceWeights("equal", {str(number): 0.001 for number in range(1000)})
    assert min(drop_weak(weights, minimum=1.0).values.values()) > 0


@pytest.mark.parametrize("minimum", [-0.1, 1.1, float("nan")])
def test_a_share_out_of_range_is_refused(minimum):
    with pytest.raises(WeightingError, match="between 0 and 1"):
        drop_weak(SourceWeights("equal", {"a": 1.0}), minimum=minimum)
