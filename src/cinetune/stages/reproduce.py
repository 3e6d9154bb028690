"""Print the commands that make a registered version again, after checking that all it was made from is to be had.

    python -m cinetune reproduce models:/cinepile-video-llava@champion

Takes the address of a version; looks for its commit in git, and for its data and base model in DVC's cache and
remote by the hashes that the version was tagged with. Writes its parameters to outputs/reproduce/<version>.yaml.
"""

from __future__ import annotations

from collections.abc import Sequence

from cinetune.cli import Parser


def run(uri: str) -> list[str]:
    """The commands. Raises InputError for the first thing that cannot be had."""
    from cinetune.tracking import reproduction

    found, commands = reproduction.commands(uri)
    print(*found, *commands, sep="\n")
    return commands


def main(argv: Sequence[str]) -> int:
    parser = Parser("reproduce", __doc__)
    parser.add_argument("model", help="for instance models:/cinepile-video-llava@champion")
    run(parser.read(argv)["model"])
    return 0
