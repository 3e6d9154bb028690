"""What the command line tells of itself, and what a shell completes."""

from __future__ import annotations

import logging
import os
import pty
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import yaml

from builders.projects import ROOT, environment
from builders.refusals import sentence
from cinetune import __main__ as command_line
from cinetune import cli
from cinetune.cli import parse

pytestmark = [pytest.mark.experience, pytest.mark.usefixtures("apart")]


@pytest.mark.parametrize("command", cli.commands())
def test_help_tells_every_parameter_its_default_and_what_params_yaml_remarks(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("COLUMNS", "300")
    with pytest.raises(SystemExit) as left:
        command_line.main([command, "--help"])
    assert left.value.code == 0
    text = capsys.readouterr().out
    section = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8")).get(command, {})
    for name, value in section.items():
        # A long line goes on, indented, in the next.
        [said] = re.findall(rf"^  --{name}\b(.*(?:\n {{10}}.*)*)", text, re.M)
        default, remark = cli.written(command)[name]
        assert yaml.safe_load(default or '""') == value or str(value) == default
        # A server's defaults are those of the version that it serves.
        assert remark in said and (not default or (f"[{default}]" in said) == (command != "serve"))


def test_help_tells_the_defaults_outside_the_root_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = []
    for folder in (ROOT, tmp_path):
        monkeypatch.chdir(folder)
        with pytest.raises(SystemExit):
            parse(["--help"], "train", "")
        said.append(capsys.readouterr().out)
    assert said[0] == said[1] and "[3.0e-3]" in said[1]


def test_help_is_whole_where_there_is_no_params_yaml(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli, "CHECKOUT", tmp_path)
    with pytest.raises(SystemExit):
        parse(["--help"], "train", "What it does.")
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
    assert command_line.main([]) == 0
    assert capsys.readouterr().out.split() == found


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["serve"], "serve: the following arguments are required: model: see `python -m cinetune serve --help`."),
        (["serve", "models:/a/1", "--prot", "1"], "serve: parameter 'prot' is not known: choose from timeout_s, "),
        (["serve", "models:/a/1", "--port"], "serve: parameter 'port' has no value: write --port <value>, or leave it"),
        (["serve", "models:/a/1", "--port", "many"], "port 'many' is not a whole number: choose one from 1 to 65535."),
        (["reproduce"], "reproduce: the following arguments are required: model: see"),
        (["reproduce", "models:/a/1", "now"], "reproduce: 'now' is not understood: write --<parameter> <value>."),
        (["train", "--epoch", "3"], "train: parameter 'epoch' is not known: choose from epochs, "),
    ],
)
def test_wrong_words_are_one_sentence_for_every_command(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command_line.main(words) == 2
    assert capsys.readouterr().err.startswith(f"error: {said}")


def test_a_flag_may_be_written_with_dashes_and_an_equals_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    train = parse(["--lora-rank=4", "--max-steps", "5", "--dry-run", "--resume", "true"], "train", "").params.train
    assert (train.lora_rank, train.max_steps, train.dry_run, train.resume) == (4, 5, True, True)
    assert "'dry_run' is given twice" in sentence(lambda: parse(["--dry_run", "--dry-run"], "train", ""))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["train"], ["info", "warning"]),
        (["train", "-q"], ["warning"]),
        (["--quiet", "train"], ["warning"]),
        (["train", "-v"], ["debug", "info", "warning"]),
    ],
)
def test_what_is_told_goes_to_stderr_as_much_as_is_asked_for(
    words: list[str], told: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.set_up_logging(words) == ["train"]
    for level in ("debug", "info", "warning"):
        getattr(logging.getLogger("cinetune.stages.train"), level)(level)
    with cli.progress("train", 2) as bar:
        bar.set_postfix(failed=1, refresh=False)
        bar.update(2)
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert captured.out == "" and lines[: len(told)] == told
    assert ("2/2" in lines[-1] and "failed=1" in lines[-1]) == ("info" in told)


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


@pytest.mark.usefixtures("apart")
def test_what_nobody_can_act_on_is_not_told_and_other_words_of_its_library_are(
    caplog: pytest.LogCaptureFixture,
) -> None:
    cli.set_up_logging([])
    library = logging.getLogger("bitsandbytes.backends.cpu.ops")
    library.warning("Failed to load CPU gemm_4bit_forward from kernels-community: %s.", "no kernels")
    library.warning("The weights are broken.")
    assert [record.getMessage() for record in caplog.records] == ["The weights are broken."]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        cli.set_up_logging([])
        warnings.warn(f"{cli.DEPRECATED} and will be removed.", FutureWarning, stacklevel=1)
        warnings.warn("`another` is deprecated.", FutureWarning, stacklevel=1)
    assert [str(warning.message) for warning in told] == ["`another` is deprecated."]
