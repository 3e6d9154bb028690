"""The command line: one parser made from the schema of params.yaml for every command, help, completion and messages.

python -c 'from cinetune import cli; print(cli.mlproject(), end="")'      # what MLproject must hold; `make mlproject`
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
import textwrap
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, get_type_hints

from tqdm import tqdm

from cinetune import params as params_module
from cinetune.errors import InputError
from cinetune.params import PARAMS, SECTIONS, Params, wanted

# Commands that are no entry points of MLproject: they read or write what no run of MLflow's would tell of.
COMMANDS_ALONE = ("serve", "reproduce", "mini")
# The file that the loop hands to DVC's stages in the place of params.yaml.
LOOP_PARAMS = "CINETUNE_LOOP_PARAMS"
CHECKOUT = Path(__file__).parents[2]
# Children that a command starts inherit it.
LOG_LEVEL = "CINETUNE_LOG_LEVEL"
# What libraries tell on every command and nobody can act on: how it begins, by logger.
UNACTIONABLE = {"bitsandbytes.backends.cpu.ops": "Failed to load CPU gemm_4bit_forward"}
# PEFT asks transformers by the name that this has given up.
DEPRECATED = "`is_gradient_checkpointing` is deprecated"
LEVELS = {"-q": "WARNING", "--quiet": "WARNING", "-v": "DEBUG", "--verbose": "DEBUG"}
LABEL, RED_LABEL = "error:", "\x1b[31merror:\x1b[0m"
PROJECT = """\
# Made from the schema in src/cinetune/params.py by `make mlproject`: edit it there.
#
# Entry points: `mlflow run . -e <entry point> -P <parameter>=<value>`. The parameters of an entry point are its
# section of params.yaml; one that is left empty has the value that it has there, here in a comment. `params` names a
# YAML file that holds only what differs.
# Types are read by our own command line: MLflow checks none. `exec` lets signals reach the stage itself, and
# PYTHONPATH spares installing the package.
name: cinetune

conda_env: conda.yaml

entry_points:
"""


@dataclass(frozen=True)
class Arguments:
    """A stage's parameters, and whether it is DVC that asks (`--pipeline`)."""

    params: Params
    is_pipeline: bool


def parse(
    argv: Sequence[str],
    stage: str,
    documentation: str | None,
    *,
    has_pipeline: bool = False,
    free: Sequence[str] = (),
) -> Arguments:
    """Arguments of a stage: `--params`, the keys of its params section and, for DVC's stages, `--pipeline`.

    An empty value counts as not given. With `--pipeline` no other key may be given but those in `free`.
    Raises InputError for what cannot be understood; exits for `--help`.
    """
    parser = Parser(stage, documentation)
    parser.flag("params", f"a YAML file that holds only what differs from {PARAMS}")
    if has_pipeline:
        told = f"as dvc.yaml calls it: the values of {PARAMS} or of the loop alone, DVC's outputs"
        parser.add_argument("--pipeline", action="store_true", default=None, help=told)
    given = parser.read(argv)
    is_pipeline = given.pop("pipeline", False)
    refused = [name for name in given if is_pipeline and name not in free]
    if refused:
        raise InputError(
            f"{stage}: --pipeline takes its values from {PARAMS} alone: leave out --{refused[0]}, or "
            "leave out --pipeline to run by hand."
        )
    default = os.environ.get(LOOP_PARAMS, PARAMS) if is_pipeline else PARAMS
    params = params_module.load_over(given.pop("params", default))
    return Arguments(params.override(stage, given) if given else params, is_pipeline)


class Parser(argparse.ArgumentParser):
    """Takes the keys of a command's section as flags, and tells in one sentence what is wrong."""

    def __init__(self, command: str, documentation: str | None, has_defaults: bool = True) -> None:
        super().__init__(
            prog=command,
            usage=f"python -m cinetune {command} [--parameter value ...]",
            description=documentation,
            epilog="-q, --quiet: warnings and errors alone; -v, --verbose: more than usual",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            exit_on_error=False,
        )
        self._takes_value = {"--help": False, "--pipeline": False}
        known = written(command)
        for name, kind in kinds_of(command).items():
            default, remark = known.get(name, ("", ""))
            of_default = f" [{default}]" if default and has_defaults else ""
            self.flag(name, f"{wanted(kind)}{of_default}{f': {remark}' if remark else ''}", is_switch=kind is bool)

    def flag(self, name: str, told: str, is_switch: bool = False) -> None:
        """A switch needs no value."""
        optional: dict[str, Any] = {"nargs": "?", "const": "true"} if is_switch else {}
        self._takes_value[f"--{name}"] = not is_switch
        self.add_argument(f"--{name}", action=_Once, metavar="VALUE", help=told.replace("%", "%%"), **optional)

    def read(self, argv: Sequence[str]) -> dict[str, Any]:
        """What was given and is not empty. Raises InputError for what cannot be understood."""
        try:
            found, unknown = self.parse_known_args(self._bind(argv))
        except argparse.ArgumentError as error:
            name = str(error.argument_name).removeprefix("--")
            remedy = f"write --{name} <value>, or leave it out"
            raise InputError(f"{self.prog}: parameter {name!r} has no value: {remedy}.") from None
        for word in unknown:
            if not word.startswith("--"):
                raise InputError(f"{self.prog}: {word!r} is not understood: write --<parameter> <value>.")
            name = word.partition("=")[0].removeprefix("--")
            raise InputError(f"{self.prog}: parameter {name!r} is not known: choose from {', '.join(vars(found))}.")
        return {name: value for name, value in vars(found).items() if value not in (None, "")}

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{self.prog}: {message}: see `python -m cinetune {self.prog} --help`.")

    def _bind(self, argv: Sequence[str]) -> list[str]:
        """`--name value` as `--name=value`: argparse takes a value that begins with a dash for a flag."""
        words: list[str] = []
        rest = list(argv)
        while rest:
            flag, is_bound, value = rest.pop(0).partition("=")
            if flag.startswith("--"):
                flag = f"--{flag[2:].replace('-', '_')}"
                if not is_bound and self._takes_value.get(flag) and rest and rest[0] not in self._takes_value:
                    is_bound, value = "=", rest.pop(0)
            words.append(f"{flag}{is_bound}{value}")
        return words


class _Once(argparse.Action):
    def __call__(
        self, parser: argparse.ArgumentParser, found: argparse.Namespace, value: Any, flag: Any = None
    ) -> None:
        if getattr(found, self.dest) is not None:
            raise InputError(f"{parser.prog}: parameter {self.dest!r} is given twice: leave one out.")
        setattr(found, self.dest, value)


def kinds_of(command: str) -> dict[str, Any]:
    """The keys of a command's section, and their types; none where it has no section."""
    return get_type_hints(SECTIONS[command]) if command in SECTIONS else {}


def commands() -> list[str]:
    """Every module of stages/: `main`, then the sections of params.yaml in their order, then those without one."""
    order = ["main", *SECTIONS]
    found = [path.stem for path in (Path(__file__).parent / "stages").glob("[!_]*.py")]
    return sorted(found, key=lambda name: (order.index(name) if name in order else len(order), name))


def written(section: str) -> dict[str, tuple[str, str]]:
    """Default and remark of each key of a section, as they stand in params.yaml; empty where there is none.

    Outside a project's root that of the checkout that this code is in.
    """
    params = next((path for path in (Path(PARAMS), CHECKOUT / PARAMS) if path.is_file()), None)
    if params is None:
        return {}
    text = params.read_text(encoding="utf-8")
    lines = re.search(rf"^{section}:.*\n((?:[ #].*\n|\n)*)", text, re.M)
    found = re.findall(r"^  (\w+): *(.*?)(?:\s+# (.*))?$", lines[1], re.M) if lines else []
    return {name: (default.strip('"'), remark) for name, default, remark in found}


def completions(line: str) -> list[str]:
    """What the last word of a command line may become."""
    _, *words = line.split(" ")
    current = words.pop() if words else ""
    if not words:
        return [command for command in commands() if command.startswith(current)]
    flags = [f"--{name}" for name in ("params", *kinds_of(words[0]))] if words[0] in commands() else []
    return [flag for flag in flags if flag.startswith(current) and flag not in words] if current[:1] == "-" else []


def mlproject() -> str:
    """What MLproject holds. Defaults are empty, so that what a user gives can be told from what he does not."""
    entries = []
    for command in (name for name in commands() if name not in COMMANDS_ALONE):
        names = ["params", *kinds_of(command)]
        known = {"params": (PARAMS, "")} | written(command)
        declared = "".join(
            f'      {name}: {{type: {_mlflow_type(command, name)}, default: ""}}{_comment(known[name][0])}\n'
            for name in names
        )
        flags = " ".join(f"--{name} {{{name}}}" for name in names)
        words = f"exec env PYTHONPATH=src python -m cinetune {command} {flags}"
        lines = textwrap.fill(words, 110, initial_indent=" " * 6, subsequent_indent=" " * 6, break_on_hyphens=False)
        entries.append(f"  {command}:\n    parameters:\n{declared}    command: >-\n{lines}\n")
    return PROJECT + "\n".join(entries)


def _mlflow_type(command: str, name: str) -> str:
    """For readers: MLflow checks none. A missing file as a `path` would leave its run RUNNING."""
    return "float" if kinds_of(command).get(name) in (int, float) else "string"


def _comment(default: str) -> str:
    return f"  # {default}" if default else ""


def set_up_logging(words: Sequence[str], line: str = "%(message)s") -> list[str]:
    """What is told goes to stderr, as much of it as the words ask for with -q or -v; the other words."""
    for level in (LEVELS[word] for word in words if word in LEVELS):
        os.environ[LOG_LEVEL] = level
    handler = _Handler()
    handler.setFormatter(logging.Formatter(line))
    logger = logging.getLogger("cinetune")
    logger.handlers = [handler]
    logger.setLevel(os.environ.get(LOG_LEVEL, "INFO"))
    warnings.filterwarnings("ignore", DEPRECATED, FutureWarning)
    for name in UNACTIONABLE:
        logging.getLogger(name).addFilter(_is_actionable)
    return [word for word in words if word not in LEVELS]


def _is_actionable(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith(UNACTIONABLE[record.name])


class _Handler(logging.Handler):
    """Writes above a bar that moves."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)


def progress(what: str, total: int | None = None) -> tqdm[Any]:
    """How far a loop is: one line that moves on a terminal, one at times elsewhere, none with --quiet."""
    is_told = total != 0 and logging.getLogger("cinetune").isEnabledFor(logging.INFO)
    seconds = 0.1 if sys.stderr.isatty() else 5.0
    return tqdm(desc=what, total=total, unit=" clips", mininterval=seconds, disable=not is_told)


def tell_error(reason: str) -> None:
    """The last line of a command that failed, however quiet; its label is red where a terminal shows it."""
    is_coloured = sys.stderr.isatty() and "NO_COLOR" not in os.environ
    tqdm.write(f"{RED_LABEL if is_coloured else LABEL} {reason}", file=sys.stderr)
