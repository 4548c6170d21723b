"""The shape of the package: who may import whom, how large files grow, what is public, what an import costs."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "src" / "potstill"
HEAVY = ("torch", "timm", "sklearn", "scipy", "matplotlib", "pydantic")

BASE = {"errors", "types"}
PURE = {"similarity", "weighting", "probes", "losses", "evaluation.metrics"}
TRAINING = BASE | PURE | {"models", "training", "allocation", "convolutions"}
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "types": {"errors", "types"},
    "files": {"errors"},
    "allocation": set(),
    "convolutions": set(),
    "machine": set(),
    "models": BASE | {"files", "models"},
    "data": BASE | {"files", "data"},
    "sources": BASE | {"convolutions", "files", "models", "data", "sources", "demo"},
    "cache": BASE | {"allocation", "files", "machine", "models", "data", "sources", "cache"},
    "similarity": BASE | {"similarity", "probes"},
    "weighting": BASE,
    "probes": BASE | {"probes"},
    "losses": BASE,
    "training": TRAINING | {"files"},
    "distillation": TRAINING | {"distillation"},
    "baselines": TRAINING | {"baselines"},
    "evaluation": BASE | PURE | {"evaluation"},
    "deployment": BASE | PURE | {"convolutions", "files", "models", "deployment"},
    "reporting": BASE | PURE | {"files", "machine", "reporting", "evaluation", "version"},
    "demo": BASE | {"demo", "files"},
    "config": BASE,
}
ANYTHING = {"pipeline", "cli", "__init__", "__main__"}


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py"))


def stage_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_stages(path: Path) -> set[str]:
    """Stages of potstill that a file imports anywhere, also within functions and under TYPE_CHECKING."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "potstill":
            parts = node.module.split(".")[1:]
            names = (
                [parts[0]]
                if parts
                else ["version" if alias.name == "__version__" else alias.name for alias in node.names]
            )
            if parts[:2] == ["evaluation", "metrics"]:
                names = ["evaluation.metrics"]
            found.update(names)
        elif isinstance(node, ast.Import):
            found.update(alias.name.split(".")[1] for alias in node.names if alias.name.startswith("potstill."))
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path: Path) -> None:
    stage = stage_of(path)
    if stage in ANYTHING:
        if stage == "pipeline":
            assert "cli" not in imported_stages(path)
        return
    stray = imported_stages(path) - ALLOWED[stage]
    assert not stray, f"{stage} may not import {sorted(stray)}"


def test_config_is_seen_by_the_pipeline_and_the_command_line_alone() -> None:
    seeing = {stage_of(path) for path in modules() if "config" in imported_stages(path)}
    assert seeing <= {"pipeline", "cli", "__init__"}


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_the_command_line_prints(path: Path) -> None:
    if stage_of(path) == "cli":
        return
    calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    assert not [call.lineno for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"]


def test_one_call_site_of_the_optimiser() -> None:
    sites = [path.name for path in modules() if "optimizer.step()" in path.read_text(encoding="utf-8")]
    assert sites == ["loop.py"]


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_stay_small(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 320


@pytest.mark.parametrize("command", ["import potstill", "from potstill.cli import main; main()"])
def test_importing_and_help_load_nothing_heavy(command: str) -> None:
    code = (
        "import sys\nsys.argv = ['potstill', '--help']\n"
        f"try:\n    exec({command!r})\nexcept SystemExit:\n    pass\n"
        f"print('loaded:', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "loaded: []"


PUBLIC = [
    "PotstillError",
    "RunConfig",
    "build_config",
    "compare",
    "distill",
    "evaluate",
    "extract",
    "load_zoo",
    "open_target",
    "predict",
    "rank",
    "redraw_labels",
    "run",
    "weigh",
]


def test_public_names_are_these() -> None:
    import potstill

    assert potstill.__all__ == PUBLIC
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = potstill.nothing


def test_public_names_stay_callable_after_every_module_is_imported() -> None:
    names = [".".join(("potstill", *path.relative_to(PACKAGE).with_suffix("").parts)) for path in modules()]
    names = [name.removesuffix(".__init__") for name in names if not name.endswith("__main__")]
    code = (
        "import importlib, potstill\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
        "bad = [name for name in potstill.__all__ for _ in range(2) if not callable(getattr(potstill, name))]\n"
        "print(bad)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_no_public_function_is_named_like_a_module() -> None:
    taken = {path.stem for path in modules()} | {path.name for path in PACKAGE.rglob("*") if path.is_dir()}
    import potstill

    functions = {name for name in potstill.__all__ if inspect.isfunction(getattr(potstill, name))}
    assert not functions & taken


COMMANDS = {"demo", "run", "rank", "distill", "compare", "evaluate", "predict", "report", "cache", "zoo"}
SUBCOMMANDS = {
    "cache": {"fill", "ls", "verify", "repair", "prune", "export"},
    "zoo": {"list", "check"},
}
OPTIONS_OF_COMPARE = {
    "--output --methods --seeds --overwrite --resume --json --config --layout --unlabeled --split-seed --test-fraction",
    "--label-fraction --labels-per-class --use-val --no-use-val --max-bad --seed --zoo --licenses --metric --reference",
    "--scoring-images --scheme --power --softmax-temperature --top-k --min-weight --student --student-weights",
    "--image-size --label-weight --temperature --source-temperature --standardise-logits --no-standardise-logits",
    "--confidence --stored-views --label-smoothing --mixup --balanced --no-balanced --augment --batch-size",
    "--accumulation --epochs --steps --minutes --lr --weight-decay --ema --bn --flip --no-flip --unlabeled-ratio",
    "--threshold --precision --memory-format --compile --no-compile --worker-start --packed-gb",
    "--device --workers --cache-dir --offline --no-offline -o",
}


def test_commands_and_options_are_these() -> None:
    import typer.main

    from potstill.cli import app

    group = typer.main.get_command(app)
    assert set(group.commands) == COMMANDS
    assert {name: set(group.commands[name].commands) for name in SUBCOMMANDS} == SUBCOMMANDS
    options = {
        name
        for each in group.commands["compare"].params
        for name in (*each.opts, *each.secondary_opts)
        if name[0] == "-"
    }
    assert options == {name for line in OPTIONS_OF_COMPARE for name in line.split()}
