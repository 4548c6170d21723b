"""Install the peers from the package index, each in a virtual environment of its own under .build-data/peers.

    python benchmarks/peers/install.py              # what is there already stays; about 3 minutes and 7 GB

torch, torchvision and timm are large, so they are installed once, for timm; the other environments see them through a
`.pth` file and add their own packages in front.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PEERS = Path(__file__).resolve().parents[2] / ".build-data" / "peers"
SHARED = "timm"
REQUIREMENTS = {
    SHARED: ("torch==2.14.1", "torchvision==0.29.1", "timm==1.0.31"),
    "torchdistill": ("torchdistill==1.1.5",),
    "semilearn": ("semilearn==0.3.2",),
}
DONE = "installed.txt"


def main() -> None:
    for name, requirements in REQUIREMENTS.items():
        wanted = "\n".join(requirements) + "\n"
        done = PEERS / name / DONE
        if done.exists() and done.read_text(encoding="utf-8") == wanted:
            print(f"{name}: already there")
            continue
        subprocess.run([sys.executable, "-m", "venv", "--clear", PEERS / name], check=True)
        if name != SHARED:
            (_packages(name) / "shared.pth").write_text(f"{_packages(SHARED)}\n", encoding="utf-8")
        subprocess.run([python_of(name), "-m", "pip", "install", "--quiet", *requirements], check=True)
        done.write_text(wanted, encoding="utf-8")
        print(f"{name}: installed {', '.join(requirements)}")


def python_of(name: str) -> Path:
    """The interpreter of a peer's environment."""
    return PEERS / name / "bin" / "python"


def _packages(name: str) -> Path:
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return PEERS / name / "lib" / version / "site-packages"


if __name__ == "__main__":
    main()
