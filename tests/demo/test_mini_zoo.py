"""The embedded sources and the generic student: they load in every key, are small, and do what their cards say."""

import re
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from potstill.demo import STUDENT, mini_zoo_file, student_weights
from potstill.similarity import parc
from potstill.sources import load_zoo
from potstill.types import SourceSpec

ZOO = load_zoo(mini_zoo_file())
DIGIT_SOURCES = ("mnist", "typeface-digits")


def load_upcast(path: Path) -> dict[str, Tensor]:
    return {key: value.float() if value.is_floating_point() else value for key, value in load_file(path).items()}


def open_model(spec: SourceSpec) -> nn.Module:
    assert spec.weights is not None
    model = timm.create_model(spec.model.removeprefix("timm/"), num_classes=spec.num_classes)
    model.load_state_dict(load_upcast(spec.weights), strict=True)
    return model.eval()


@pytest.fixture(scope="module")
def scans() -> tuple[Tensor, np.ndarray]:
    """The demo's digits as a source sees them, `(1797, 3, 32, 32)` in [-1, 1], and their labels."""
    digits = load_digits()
    small = torch.from_numpy(digits.images / 16).float()[:, None]
    large = nn.functional.interpolate(small, size=32, mode="bilinear").expand(-1, 3, -1, -1)
    return (large - 0.5) / 0.5, digits.target


@pytest.fixture(scope="module")
def features(scans: tuple[Tensor, np.ndarray]) -> dict[str, np.ndarray]:
    outputs = {}
    for spec in ZOO:
        model = open_model(spec)
        with torch.inference_mode():
            outputs[spec.name] = model.forward_head(model.forward_features(scans[0]), pre_logits=True).numpy()
    return outputs


def test_the_zoo_has_related_and_unrelated_sources_of_several_architectures() -> None:
    assert len(ZOO) >= 6
    assert len({spec.model for spec in ZOO}) >= 4
    assert any(spec.num_classes == 0 for spec in ZOO)
    assert any(spec.model != STUDENT for spec in ZOO)


def test_weights_are_small_half_precision_and_readable_by_all() -> None:
    files = sorted(mini_zoo_file().parent.glob("*.safetensors"))
    assert {path.stem for path in files} == set(ZOO.sources)
    assert sum(path.stat().st_size for path in files) <= 6_000_000
    for path in [*files, student_weights()]:
        assert all(value.dtype == torch.float16 for value in load_file(path).values() if value.is_floating_point())
        assert path.stat().st_mode & 0o044 == 0o044


@pytest.mark.parametrize("spec", list(ZOO), ids=lambda spec: spec.name)
def test_weights_fit_in_every_key_and_classes_have_names(spec: SourceSpec) -> None:
    model = open_model(spec)
    assert all(bool(torch.isfinite(value).all()) for value in model.state_dict().values())
    assert len(spec.classes or ()) == spec.num_classes


@pytest.mark.parametrize("spec", list(ZOO), ids=lambda spec: spec.name)
def test_every_card_states_data_licence_command_and_the_accuracy_of_the_zoo_file(spec: SourceSpec) -> None:
    card = (mini_zoo_file().parent / "cards" / f"{spec.name}.md").read_text()
    assert spec.accuracy is not None
    assert f"| accuracy | {spec.accuracy['value']:.4f} on {spec.accuracy['on']} |" in card
    assert f"| data licence | {spec.license} |" in card
    assert f"`python benchmarks/mini_zoo/train_sources.py --only {spec.name}`" in card
    assert spec.sha256 is not None
    assert spec.sha256 in card


@pytest.mark.parametrize(("name", "least"), [("mnist", 0.85), ("typeface-digits", 0.8)])
def test_digit_sources_read_the_demo_digits_without_training(
    name: str, least: float, scans: tuple[Tensor, np.ndarray]
) -> None:
    model = open_model(ZOO.sources[name])
    with torch.inference_mode():
        guesses = model(scans[0]).argmax(1).numpy()
    assert np.mean(guesses == scans[1]) > least


def test_parc_puts_the_digit_sources_first_from_two_labels_a_class(
    scans: tuple[Tensor, np.ndarray], features: dict[str, np.ndarray]
) -> None:
    labels = scans[1]
    draws = []
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(len(labels))
        rows = np.concatenate([order[labels[order] == digit][:2] for digit in range(10)])
        draws.append({name: parc(values[rows], labels[rows]) for name, values in features.items()})
    mean = {name: np.mean([scores[name] for scores in draws]) for name in features}
    assert set(sorted(mean, key=lambda name: -mean[name])[:2]) == set(DIGIT_SOURCES)
    assert all(max(scores, key=lambda name: scores[name]) in DIGIT_SOURCES for scores in draws)


def test_a_probe_on_a_digit_source_beats_one_on_an_unrelated_source(
    scans: tuple[Tensor, np.ndarray], features: dict[str, np.ndarray]
) -> None:
    labels = scans[1]
    order = np.random.default_rng(0).permutation(len(labels))
    train, test = order[:200], order[200:]

    def probe_accuracy(name: str) -> float:
        values = features[name]
        values = (values - values[train].mean(0)) / (values[train].std(0) + 1e-6)
        probe = LogisticRegression(max_iter=500).fit(values[train], labels[train])
        return float(probe.score(values[test], labels[test]))

    assert probe_accuracy("mnist") > max(0.93, probe_accuracy("icons"), probe_accuracy("emoji"))


def test_the_student_starts_from_generic_weights_without_a_classifier(scans: tuple[Tensor, np.ndarray]) -> None:
    model = timm.create_model(STUDENT.removeprefix("timm/"), num_classes=0)
    model.load_state_dict(load_upcast(student_weights()), strict=True)
    with torch.inference_mode():
        outputs = model.eval()(scans[0][:64])
    assert outputs.shape == (64, model.num_features)
    assert bool(torch.isfinite(outputs).all())
    assert float(outputs.std(0).mean()) > 1e-3


def test_the_students_card_reports_that_generic_weights_beat_pixels_and_random_weights() -> None:
    card = student_weights().with_suffix(".md").read_text()
    rows = re.findall(r"\| demo \| (\d) a class \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|", card)
    assert [row[0] for row in rows] == ["1", "2"]
    for _, pixels, random, generic in rows:
        assert float(generic) > float(pixels)
        assert float(generic) > float(random) + 0.05
