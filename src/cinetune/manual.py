"""What `--help` says of a stage's parameters, and what a shell completes: both from params.yaml and its comments."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

TYPES = {str: "text", int: "whole number", float: "number", bool: "true or false"}
PARAMS = "params.yaml"


def parameters(stage: str, kinds: Mapping[str, type], params: Path = Path(PARAMS)) -> list[str]:
    """A line a parameter: name, type, default and what params.yaml remarks."""
    known = written(stage, params)
    lines = []
    for name, kind in kinds.items():
        default, remark = known.get(name, ("", ""))
        of_default = f" [{default}]" if default else ""
        lines.append(f"  --{name:<25}{TYPES[kind]}{of_default}{f': {remark}' if remark else ''}")
    return lines


def written(stage: str, params: Path = Path(PARAMS)) -> dict[str, tuple[str, str]]:
    """Default and remark of each key of a section, as they stand in the file; empty where there is no file."""
    if not params.is_file():
        return {}
    text = params.read_text(encoding="utf-8")
    section = re.search(rf"^{stage}:.*\n((?:[ #].*\n|\n)*)", text, re.M)
    found = re.findall(r"^  (\w+): *(.*?)(?:\s+# (.*))?$", section[1], re.M) if section else []
    return {name: (default.strip('"'), remark) for name, default, remark in found}


def completions(line: str, parameters_of: Mapping[str, Sequence[str]]) -> list[str]:
    """What the last word of a command line may become; `parameters_of`: those of each command."""
    _, *words = line.split(" ")
    current = words.pop() if words else ""
    if not words:
        return [command for command in parameters_of if command.startswith(current)]
    flags = [f"--{name}" for name in parameters_of.get(words[0], ())]
    return [flag for flag in flags if flag.startswith(current) and flag not in words] if current[:1] == "-" else []


def error_label() -> str:
    """Red where a terminal shows it."""
    is_coloured = sys.stderr.isatty() and "NO_COLOR" not in os.environ
    return "\x1b[31merror:\x1b[0m" if is_coloured else "error:"
