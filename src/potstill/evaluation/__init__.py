"""How good a student is, what it costs, and whether it is better than another."""

from potstill.evaluation.comparisons import Delta, MethodSummary, RunPredictions, is_ahead, is_tied, summarise_runs
from potstill.evaluation.cost import model_cost
from potstill.evaluation.metrics import METRICS, classification_metrics, confusion_matrix, per_class_recall

__all__ = [
    "METRICS",
    "Delta",
    "MethodSummary",
    "RunPredictions",
    "classification_metrics",
    "confusion_matrix",
    "is_ahead",
    "is_tied",
    "model_cost",
    "per_class_recall",
    "summarise_runs",
]
