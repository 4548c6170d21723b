"""timm models: creating them, their weights files, and their parts."""

from potstill.models.anatomy import features_of, logits_of_features, preprocessing_of
from potstill.models.creation import architecture_of, create_model, pretrained_cfg_of
from potstill.models.weights import load_state, save_state

__all__ = [
    "architecture_of",
    "create_model",
    "features_of",
    "load_state",
    "logits_of_features",
    "preprocessing_of",
    "pretrained_cfg_of",
    "save_state",
]
