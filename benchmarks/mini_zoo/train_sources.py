"""Train the sources of the mini zoo, one after the other, and measure each on its own held-out part.

    python benchmarks/mini_zoo/train_sources.py [--only NAME ...] [--data .build-data] [--threads 2]

Each source starts from random weights and sees the source side of its part only. Its weights go to
`src/potstill/demo/mini_zoo/`, its figures to `benchmarks/results/mini_zoo.json`; `write_zoo.py` then writes the zoo
file and the cards.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import time
from pathlib import Path

import numpy as np
import PIL
import timm
import torch
from augment import Variation, plain_pictures, vary_pictures
from catalogue import RECIPES, Recipe
from few_shot import RESULTS
from loop import accuracy_on, normalise, pooled_features, save_half, train_classifier
from parts import Part, load_part
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

ZOO = Path("src/potstill/demo/mini_zoo")
SEED = 0


def train_source(name: str, recipe: Recipe, data: Path) -> dict[str, object]:
    """Train, save, reload and measure one source; returns its figures."""
    part = load_part(data / "parts" / f"{recipe.part}.npz")
    source, test = part.on_side("source"), part.on_side("test")
    if recipe.headless:
        source = Part(source.images, np.arange(len(source.labels)), source.groups, source.classes)
    begun = time.process_time()
    model = train_classifier(source, recipe.architecture, recipe.variation, passes=recipe.passes, seed=SEED)
    seconds = time.process_time() - begun
    path = ZOO / f"{name}.safetensors"
    save_half(model, path, classifier=not recipe.headless)
    stored = reload(recipe.architecture, path, 0 if recipe.headless else len(part.classes))
    accuracy = matching_accuracy(stored, test, recipe.variation) if recipe.headless else accuracy_on(stored, test)
    return {
        "architecture": recipe.architecture,
        "params": sum(parameter.numel() for parameter in stored.parameters()),
        "bytes": path.stat().st_size,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "classes": [] if recipe.headless else list(part.classes),
        "pictures": {"source": len(source.labels), "test": len(test.labels)},
        "groups": {"source": len(np.unique(source.groups)), "test": len(np.unique(test.groups))},
        "passes": recipe.passes,
        "seed": SEED,
        "cpu_seconds": round(seconds),
        "accuracy": round(accuracy, 4),
        "chance": round(1 / len(test.labels), 5) if recipe.headless else commonest_class(test),
        "versions": {"torch": torch.__version__, "timm": timm.__version__, "pillow": PIL.__version__},
        "python": platform.python_version(),
    }


def reload(architecture: str, path: Path, num_classes: int) -> nn.Module:
    """The model as users get it: float16 weights cast up, every key used."""
    model = timm.create_model(architecture, num_classes=num_classes)
    model.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in load_file(path).items()})
    return model.to(memory_format=torch.channels_last).eval()


def commonest_class(part: Part) -> float:
    """Accuracy of always guessing the commonest class."""
    return round(float(np.bincount(part.labels).max() / len(part.labels)), 4)


@torch.inference_mode()
def matching_accuracy(model: nn.Module, part: Part, variation: Variation) -> float:
    """Share of held-out pictures whose varied copy is nearest, by cosine of features, to the picture itself."""
    pictures = torch.from_numpy(part.images)
    generator = torch.Generator().manual_seed(SEED)

    def directions(images: Tensor) -> Tensor:
        features = pooled_features(model, normalise(images))
        return F.normalize(features - features.mean(0), dim=1)

    plain, varied = directions(plain_pictures(pictures)), directions(vary_pictures(pictures, variation, generator))
    return float(((varied @ plain.T).argmax(1) == torch.arange(len(pictures))).float().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=list(RECIPES))
    parser.add_argument("--data", type=Path, default=Path(".build-data"))
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    ZOO.mkdir(parents=True, exist_ok=True)
    for name in arguments.only:
        figures = train_source(name, RECIPES[name], arguments.data)
        results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"sources": {}}
        results["sources"][name] = figures
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
        print(name, figures["accuracy"], f"{figures['cpu_seconds']} s of CPU", flush=True)


if __name__ == "__main__":
    main()
