"""Probes: linear classifiers on frozen features, fitted in closed form and calibrated by held-out predictions."""

from potstill.probes._calibration import PENALTIES, can_be_held_out, fit_temperature
from potstill.probes._fitting import assign_folds, fit_probe, held_out_logits, out_of_fold_probs, probe_logits

__all__ = [
    "PENALTIES",
    "assign_folds",
    "can_be_held_out",
    "fit_probe",
    "fit_temperature",
    "held_out_logits",
    "out_of_fold_probs",
    "probe_logits",
]
