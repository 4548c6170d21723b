"""The only place where the stages meet.

A target and a zoo go in; every source answers once (`extract`); the answers are compared with the labels (`rank`);
the scores become source weights (`weigh`); a student is trained on them (`distill`) and compared with its rivals
(`compare`). `run` does all of it.
"""

from potstill.pipeline.comparison import compare
from potstill.pipeline.steps import distill, extract, rank
from potstill.pipeline.usage import evaluate, predict
from potstill.pipeline.whole_run import run

__all__ = ["compare", "distill", "evaluate", "extract", "predict", "rank", "run"]
