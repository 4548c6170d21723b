"""A timm model as an ONNX file."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn


def export_onnx(model: nn.Module, file: Path, size: int) -> Path:
    """Write the model with the outputs `features` and `logits`, for any number of images."""

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
            features = self.model.forward_head(self.model.forward_features(images), pre_logits=True)
            return features, self.model.get_classifier()(features)

    example = torch.zeros(2, 3, size, size)
    batch = torch.export.Dim("batch", min=1, max=4096)
    torch.onnx.export(
        Both().eval(),
        (example,),
        file,
        input_names=["images"],
        output_names=["features", "logits"],
        dynamic_shapes={"images": {0: batch}},
        dynamo=True,
        verbose=False,
    )
    return file
