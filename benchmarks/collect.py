"""Run every benchmark and put what it prints into docs/performance.md, between marks; what stands outside them stays.

    python benchmarks/collect.py [name ...]

Without a GPU `throughput` and `rehearsal` take the tiny model, without two `scaling` does. A benchmark that fails
leaves its old table, and the rest goes on; the exit status is then 1. `accuracy` trains for hours and is run when it is
named only.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = (
    "decode",
    "storage",
    "throughput",
    "scaling",
    "rehearsal",
    "evaluation",
    "serve_load",
    "questions",
    "importing",
    "shortcuts",
)
BY_NAME = ("accuracy",)


def main(names: Sequence[str]) -> int:
    known = SCRIPTS + BY_NAME
    unknown = sorted(set(names) - set(known))
    if unknown:
        print(f"error: benchmark {unknown[0]!r} is not known: choose from {', '.join(known)}.", file=sys.stderr)
        return 2
    return collect(ROOT / "benchmarks", names or list(SCRIPTS), ROOT / "docs/performance.md")


def collect(scripts: Path, names: Sequence[str], document: Path) -> int:
    """The exit status: 1 where a benchmark failed."""
    failed = []
    for name in names:
        print(f"bench: {name}", file=sys.stderr, flush=True)
        command = [sys.executable, str(scripts / f"{name}.py"), *_arguments(name)]
        done = subprocess.run(command, cwd=document.parents[1], stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            failed.append(name)
            continue
        text = document.read_text(encoding="utf-8")
        document.write_text(placed(text, name, section(done.stdout)), encoding="utf-8")
    if failed:
        print(f"error: {', '.join(failed)} failed: the reason stands above.", file=sys.stderr)
    return 1 if failed else 0


def _arguments(name: str) -> list[str]:
    import torch

    gpus = {"throughput": 1, "rehearsal": 1, "scaling": 2}.get(name, 0)
    return ["--tiny"] if torch.cuda.device_count() < gpus else []


def section(output: str) -> str:
    """A benchmark's table and its last line of JSON as Markdown."""
    *table, last = output.rstrip().splitlines()
    content = json.loads(last)
    machine = content["machine"]
    if isinstance(machine, dict):
        machine = ", ".join(f"{name} {value}" for name, value in machine.items())
    figures = "; ".join(f"{name} {value:g}" for name, value in content["figures"].items())
    return "\n".join(["```text", *table, "```", "", f"{machine}: {figures}."])


def placed(text: str, name: str, content: str) -> str:
    """The document with `content` between the marks of `name`, at its end where it has none yet."""
    begin, end = f"<!-- begin: {name} -->", f"<!-- end: {name} -->"
    block = f"{begin}\n{content}\n{end}"
    if begin not in text:
        return f"{text.rstrip()}\n\n## benchmarks/{name}.py\n\n{block}\n"
    return re.sub(f"{begin}.*?{end}", lambda _: block, text, flags=re.S)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
