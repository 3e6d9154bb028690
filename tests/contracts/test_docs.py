"""Documents say only what is so: commands parse, files exist, quoted messages stand in the code, links lead on."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest
import yaml

from builders.projects import ROOT
from builders.shell import blocks, commands
from cinetune import cli
from cinetune.cli import parse

pytestmark = pytest.mark.experience

DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
# What a block needs that no test has. Such a block stands behind `<!-- needs: ... -->`.
# By what of it tells that it needs them.
NEEDS = {
    "GPU": r"CUDA_VISIBLE_DEVICES|params=(recipes/(?!cameras)|mine)",
    "hub": r"questions=v[12]|hf (auth|download)|params=(recipes/(?!cameras)|mine)",
    "S3": r"s3://",
    "docker": r"\bdocker\b",
    "root": r"apt-get|sudo",
}
# A file that the reader is told to make.
MADE = ["--params", "mine.yaml"]
# Programs that are not ours and that no test runs with these very words.
FOREIGN = {
    "apt-get", "sudo", "export", "source", "git", "hf", "curl", "cp", "cd", "complete", "docker", "ask", "ask()",
    "echo", "done", "for", "}", "pre-commit", "sed",
}  # fmt: skip

ALL = [pytest.param(words, id=f"{path.name}: {' '.join(words)[:60]}") for path in DOCUMENTS for words in commands(path)]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_a_block_that_no_test_can_run_says_what_it_needs(path: Path) -> None:
    for needs, code in blocks(path):
        told = set(filter(None, needs.split(", ")))
        assert told <= set(NEEDS)
        assert told >= {name for name, sign in NEEDS.items() if re.search(sign, code)}, code


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_what_the_reader_fills_in_is_no_redirection_to_a_shell(path: Path) -> None:
    for _, code in blocks(path):
        assert not re.search(r"<\w[^<>\n]*>", code), code


@pytest.mark.parametrize("words", ALL)
def test_each_command_is_one_that_its_program_takes(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    program, *rest = words
    if program == "python" and rest[:2] == ["-m", "cinetune"]:
        check_cinetune(rest[2:])
    elif program == "torchrun":
        check_cinetune(rest[rest.index("cinetune") + 1 :])
    elif program == "python":
        check_script(rest)
    elif program == "mlflow":
        check_mlflow(rest)
    elif program == "make":
        check_make(rest)
    elif program == "dvc":
        check_dvc(rest)
    elif program == "pip":
        check_pip(rest)
    elif program == "pytest":
        assert rest[0] in ("-k", "-m", "tests")
    else:
        assert program in FOREIGN, f"no test knows {program!r}"
    for word in words:
        if re.match(r"(recipes|benchmarks|tests|docs|src)/", word):
            assert (ROOT / word).exists(), word


def check_cinetune(words: list[str]) -> None:
    if words[0] == "--help":
        return
    command, *arguments = words
    assert command in cli.commands()
    if "--help" in arguments:
        arguments.remove("--help")
    if command == "serve":
        known = {"host", "port", *cli.kinds_of("serve")}
        assert {word[2:] for word in arguments if word.startswith("--")} <= known
    elif command == "reproduce":
        assert len(arguments) == 1
    else:
        if arguments[-2:] == MADE:
            del arguments[-2:]
        parse(arguments, command, "", has_pipeline=True)


def check_mlflow(words: list[str]) -> None:
    if words[:2] != ["run", "."]:
        from mlflow.cli import cli as program

        program.commands[words[0]].make_context(words[0], words[1:])
        return
    project = yaml.safe_load((ROOT / "MLproject").read_text(encoding="utf-8"))["entry_points"]
    rest, entry, given = words[2:], "main", {}
    while rest:
        flag, value, *rest = rest
        if flag == "-P":
            name, _, text = value.partition("=")
            given[name] = text
        elif flag == "-e":
            entry = value
        else:
            assert flag == "--env-manager" and value in ("local", "uv", "virtualenv", "conda"), flag
    assert set(given) <= set(project[entry]["parameters"])
    # A file that the reader is told to make, or that a run made.
    if given.get("params", "").startswith(("mine.yaml", "mydata.yaml", "outputs/runs/RUN_ID")):
        del given["params"]
    parse([word for name, text in given.items() for word in (f"--{name}", text)], entry, "")


def check_script(words: list[str]) -> None:
    source = (ROOT / words[0]).read_text(encoding="utf-8")
    for flag in (word for word in words[1:] if word.startswith("--")):
        assert f'"{flag}"' in source, flag


def check_make(words: list[str]) -> None:
    source = (ROOT / "Makefile").read_text(encoding="utf-8")
    for word in words:
        name, is_variable, _ = word.partition("=")
        assert re.search(rf"^{name} \?=" if is_variable else rf"^{name}:", source, re.M), word


def check_dvc(words: list[str]) -> None:
    from dvc.cli import parse_args

    parse_args(words)


def check_pip(words: list[str]) -> None:
    assert words[0] == "install"
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for word in words[1:]:
        own = re.fullmatch(r"(?:\.|cinetune)\[(\w+)\]", word)
        assert own is None or own[1] in extras, word


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_between_documents_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\((?!https?://)([^)#\s]+)\)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), target


def test_the_readme_leads_to_every_document_and_is_short() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) < 200
    for path in (ROOT / "docs").glob("*.md"):
        assert f"docs/{path.name}" in text, path.name


# ---- troubleshooting


def spoken() -> list[str]:
    """Every text of the code, with `…` for what is filled in, and the Makefile's."""
    texts = [(ROOT / "Makefile").read_text(encoding="utf-8").replace("\\`", "`").replace("$(1)", "…")]
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                texts.append("".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    return texts


def quoted() -> list[str]:
    headings = re.findall(r"^### `(.*)`$", (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8"), re.M)
    assert len(headings) > 20
    return headings


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return spoken()


@pytest.mark.parametrize("message", quoted())
def test_each_message_in_troubleshooting_is_one_that_is_said(message: str, texts: list[str]) -> None:
    pattern = re.compile(".*?".join(re.escape(part) for part in message.split("…")), re.S)
    assert any(pattern.search(text) for text in texts)
