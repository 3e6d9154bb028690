"""`python -m cinetune <command> [--parameter value ...]`: every stage as a command.

A signal ends a command like any other exit, so that its MLflow run ends too; a command that was started by
another program of this project ends when that program does.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from types import FrameType

from cinetune import errors
from cinetune.errors import InputError
from cinetune.runtime.distributed import LAUNCHED, LOST, WRONG_INPUT, LostProcessError
from cinetune.runtime.signals import ENDING

# MLflow, main and DVC set these for what they start. A command that a person started has none of them and may
# outlive its shell.
STARTED_BY = ("MLFLOW_RUN_ID", "CINETUNE_PARENT_RUN_ID", "DVC_STAGE", LAUNCHED)


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status: 0, 2 for wrong input (one sentence on stderr), 128 + n after signal n."""
    words = list(sys.argv[1:] if argv is None else argv)
    # MKL's sums are then the same however many threads it takes, so that a training that goes on keeps its bits. It
    # reads this before its first product.
    os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")
    _leave_on_signals()
    if any(name in os.environ for name in STARTED_BY):
        _leave_with_parent()
    reason = "it ended unexpectedly: see its output"
    status = 1
    try:
        with errors.one_sentence():
            status = _dispatch(words)
    except InputError as error:
        from cinetune.cli import tell_error

        reason, status = str(error), WRONG_INPUT
        if isinstance(error, LostProcessError) and LAUNCHED in os.environ:
            # The launcher tells which was lost, and why.
            status = LOST
        else:
            tell_error(reason)
    except SystemExit as leaving:
        status = leaving.code if isinstance(leaving.code, int) else 1
        reason = f"it was stopped with exit status {status}"
        raise
    finally:
        # A stage that opened its run has taken the id away. One that is left here ended before that.
        run_id = os.environ.pop("MLFLOW_RUN_ID", None)
        if run_id and status:
            from cinetune.tracking import lifecycle

            lifecycle.fail(run_id, reason)
    return status


def _dispatch(words: Sequence[str]) -> int:
    # Imports that a signal may come in the middle of.
    from cinetune import cli

    words = cli.set_up_logging(words)
    if "COMP_LINE" in os.environ:
        print(*cli.completions(os.environ["COMP_LINE"]), sep="\n")
        return 0
    if not words or words[0] in ("--help", "-h"):
        print(_usage(cli.commands()))
        return 0 if words else WRONG_INPUT
    command, *arguments = words
    if command not in cli.commands():
        raise InputError(f"command {command!r} is not known: choose from {', '.join(cli.commands())}.")
    return importlib.import_module(f"cinetune.stages.{command}").main(arguments)


def _usage(commands: Sequence[str]) -> str:
    lines = ["python -m cinetune <command> [--parameter value ...]; --help after a command tells more.", ""]
    for command in commands:
        documentation = importlib.import_module(f"cinetune.stages.{command}").__doc__ or ""
        lines.append(f"  {command:<11}{documentation.splitlines()[0]}")
    lines += ["", "Bash completes commands and parameters after: complete -o default -C cinetune cinetune"]
    return "\n".join(lines)


def _leave_on_signals() -> None:
    for number in ENDING:
        # One that is ignored from the start, as under nohup, is meant to be.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _leave)


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _leave_with_parent() -> None:
    parent = os.getppid()
    # DVC stands between the loop and its stages, and would go on without it.
    loop = int(os.environ.get("CINETUNE_LOOP_PID", parent))

    def watch() -> None:
        while os.getppid() == parent and _is_alive(loop):
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True, name="parent-watch").start()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


if __name__ == "__main__":
    sys.exit(main())
