"""What happens around a command: signals, several processes, and errors as one message with an exit code."""

from __future__ import annotations

import signal
import sys

from potstill.cli.commands import app
from potstill.cli.display import messages, print_json, set_up_logging
from potstill.errors import Interrupted, PotstillError
from potstill.training.interruption import SIGNALS
from potstill.training.orders import dismiss_processes, meet_processes
from potstill.training.processes import adopt_slurm, process_number


def _stop(number: int, frame: object) -> None:
    raise Interrupted("Stopped. What was finished is kept; go on with --resume.")


def main() -> None:
    """Run a command; every deliberate error becomes one message and its exit code.

    Of several processes that a launcher started, the first one runs the command and the others help it to train; only
    `cache fill` is run by all of them.
    """
    adopt_slurm()
    alike = sys.argv[1:3] == ["cache", "fill"]
    if process_number() > 0 and not alike:
        from potstill.pipeline.together import help_training

        try:
            sys.exit(help_training())
        except (PotstillError, Interrupted) as error:
            _explain(error)
            sys.exit(error.exit_code)
    set_up_logging()
    for number in SIGNALS:
        signal.signal(number, _stop)
    exit_code = 1  # a bug, unless something else is said below
    try:
        if not alike:
            meet_processes()
        app()
        exit_code = 0
    except SystemExit as end:
        exit_code = end.code if isinstance(end.code, int) else 0
    except (PotstillError, Interrupted) as error:
        exit_code = error.exit_code
        if "--json" in sys.argv:
            print_json({"schema": 1, "error": {"kind": type(error).__name__, "message": str(error)}})
        _explain(error)
    finally:
        if not alike:
            dismiss_processes(exit_code)
    sys.exit(exit_code)


def _explain(error: BaseException) -> None:
    messages.print(f"[bold red]Error:[/] {_escaped(str(error))}", soft_wrap=True)


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)
