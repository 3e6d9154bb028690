"""What the command line tells of itself, and what a shell completes."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cinetune import __main__ as command_line
from cinetune import manual, stages
from conftest import ROOT, environment

pytestmark = pytest.mark.experience


@pytest.mark.parametrize("command", command_line.COMMANDS)
def test_help_tells_every_parameter_its_default_and_what_params_yaml_remarks(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("COLUMNS", "300")
    with pytest.raises(SystemExit) as left:
        command_line._dispatch([command, "--help"])
    assert left.value.code == 0
    text = capsys.readouterr().out
    section = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8")).get(command, {})
    for name, value in section.items():
        # A long line goes on, indented, in the next.
        [said] = re.findall(rf"^  --{name} (.*(?:\n {{10}}.*)*)", text, re.M)
        default, remark = manual.written(command)[name]
        assert yaml.safe_load(default or '""') == value or str(value) == default
        # A server's defaults are those of the version that it serves.
        assert remark in said and (command == "serve" or not default or f"[{default}]" in said)


def test_help_is_whole_where_there_is_no_params_yaml(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        stages.parse(["--help"], "train", "What it does.")
    assert "--learning_rate" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("cinetune tr", ["train"]),
        ("cinetune re", ["report", "register", "reproduce"]),
        ("cinetune train --ep", ["--epochs"]),
        ("cinetune train --lora_rank 4 --lora_", ["--lora_alpha", "--lora_dropout"]),
        ("cinetune train outputs/", []),
        ("cinetune nothing --", []),
    ],
)
def test_a_shell_completes_commands_and_parameters(
    line: str, found: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COMP_LINE", line)
    assert command_line._dispatch([]) == 0
    assert capsys.readouterr().out.split() == found


def test_colour_and_moving_lines_are_for_terminals_alone() -> None:
    command = [sys.executable, "-m", "cinetune", "paint"]
    variables = environment() | {"PYTHONPATH": str(ROOT / "src")}
    plain = subprocess.run(command, env=variables, capture_output=True, text=True)
    assert plain.stderr.startswith("error: command 'paint'")
    ours, theirs = pty.openpty()
    subprocess.run(command, env=variables, stderr=theirs, check=False)
    os.close(theirs)
    assert os.read(ours, 1000).startswith(b"\x1b[31merror:\x1b[0m command")
    os.close(ours)
