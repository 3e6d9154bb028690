"""One content, two renderings: sections of text, tables and pictures as Markdown and as a self-contained HTML page.

Nothing depends on when or where it was written: the same content gives the same bytes.
"""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader


@dataclass(frozen=True)
class Link:
    text: str
    url: str

    @property
    def safe_url(self) -> str:
        """An address that cannot run anything or end the markup that it stands in; empty where there is none."""
        scheme = re.match(r"\s*([\w+.-]+):", self.url)
        if scheme and scheme[1].lower() not in ("http", "https"):
            return ""
        return re.sub(r"[\s<>\"'|\\]", lambda found: f"%{ord(found[0]):02X}", self.url)


Cell = str | Link


@dataclass(frozen=True)
class Table:
    """Cells as plain text or links; `is_prose` sets every column to the left."""

    headers: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    is_prose: bool = False


@dataclass(frozen=True)
class Picture:
    """`name` is its file beside the Markdown; the page holds it itself."""

    name: str
    text: str
    content: bytes
    has_caption: bool = False

    @property
    def data_uri(self) -> str:
        kind = "png" if self.name.endswith(".png") else "jpeg"
        return f"data:image/{kind};base64,{base64.b64encode(self.content).decode('ascii')}"


@dataclass(frozen=True)
class Section:
    title: str
    paragraphs: Sequence[str] = ()
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()


def write(folder: Path, title: str, introduction: Sequence[str], sections: Sequence[Section]) -> None:
    """Write report.md with its pictures and report.html; the first section may have an empty title."""
    folder.mkdir(parents=True, exist_ok=True)
    for picture in (picture for section in sections for picture in section.pictures):
        path = folder / picture.name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(picture.content)
    templates = Environment(
        loader=PackageLoader("cinetune.report", ""),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    page = templates.get_template("page.html.j2").render(title=title, introduction=introduction, sections=sections)
    # Bytes, because text mode would write other newlines on other systems.
    (folder / "report.html").write_bytes(page.encode())
    (folder / "report.md").write_bytes(_markdown_page(title, introduction, sections).encode())


def markdown(table: Table) -> str:
    rules = ["---" if table.is_prose or not index else "---:" for index in range(len(table.headers))]
    text = [[_markdown_text(cell) for cell in table.headers], rules]
    text += [[_markdown_cell(cell) for cell in row] for row in table.rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in text) + "\n"


def _markdown_text(text: str) -> str:
    """Text that Markdown shows as it stands: no markup, no HTML, no broken table."""
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", html.escape(" ".join(text.split()), quote=False))


def _markdown_cell(cell: Cell) -> str:
    if isinstance(cell, str):
        return _markdown_text(cell)
    return f"[{_markdown_text(cell.text)}](<{url}>)" if (url := cell.safe_url) else _markdown_text(cell.text)


def _markdown_page(title: str, introduction: Sequence[str], sections: Sequence[Section]) -> str:
    blocks = [f"# {_markdown_text(title)}", *map(_markdown_text, introduction)]
    for section in sections:
        if section.title:
            blocks.append(f"## {_markdown_text(section.title)}")
        blocks += map(_markdown_text, section.paragraphs)
        blocks += (markdown(table).rstrip() for table in section.tables)
        for picture in section.pictures:
            blocks.append(f"![{_markdown_text(picture.text)}](<{picture.name}>)")
            blocks += [_markdown_text(picture.text)] if picture.has_caption else []
    return "\n\n".join(blocks) + "\n"
