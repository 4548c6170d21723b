import doctest
from pathlib import Path

import pytest

from potstill.similarity import SIMILARITIES

PAGE = Path(__file__).parents[2] / "docs" / "similarity.md"


def test_examples_of_the_page():
    outcome = doctest.testfile(str(PAGE), module_relative=False)
    assert outcome.attempted > 5
    assert outcome.failed == 0


@pytest.mark.parametrize("name", SIMILARITIES)
def test_every_metric_is_on_the_page(name):
    assert f"| `{name}` |" in PAGE.read_text(encoding="utf-8")
