"""Which installed packages lack files, as after an interrupted `rm -r .venv`; pip itself looks at none of them.

    python -I src/cinetune/installed.py      # their pins, one a line; exit status 1 where there are any

Needs the standard library alone, and looks at the environment of the interpreter that runs it.
"""

from __future__ import annotations

import csv
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

PROJECT = "cinetune"


def broken(site: Path) -> Iterator[str]:
    """`name==version` of each package below `site` of whose files one is missing."""
    for record in sorted(site.glob("*.dist-info/RECORD")):
        name, _, version = record.parent.name.removesuffix(".dist-info").partition("-")
        if name != PROJECT and not all((site / path).exists() for path in _listed(record)):
            yield f"{name}=={version}"


def _listed(record: Path) -> Iterator[str]:
    with record.open(encoding="utf-8", newline="") as file:
        for path, *_ in csv.reader(file):
            # Bytecode is made when it is missed.
            if not path.endswith(".pyc"):
                yield path


def main() -> int:
    found = list(broken(Path(sysconfig.get_path("purelib"))))
    print(*found, sep="\n", end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
