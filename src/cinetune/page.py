"""One content, two renderings: sections of text, tables and pictures as Markdown and as a page of its own.

The page needs no other file. Nothing depends on when or where it was written: the same content gives the same bytes.
"""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

NOTHING = "–"
EXCERPT_CHARS = 160
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1b1b1b; background: #fff; max-width: 66rem;
       margin: 2rem auto; padding: 0 1.25rem; }
h1 { font-size: 1.7rem; margin-bottom: .25rem; } h2 { font-size: 1.2rem; margin-top: 2.25rem; }
p { max-width: 46rem; } img { max-width: 100%; height: auto; margin-top: 1rem; }
figure { margin: 1.25rem 0; } figcaption { font-size: .9rem; }
figure img { display: block; margin: 0; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .9rem; margin: .75rem 0; }
th, td { padding: .35rem .7rem; border-bottom: 1px solid #ddd; text-align: right; vertical-align: top;
         font-variant-numeric: tabular-nums; }
td { white-space: nowrap; }
th { border-bottom: 2px solid #888; vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; }
table.prose th, table.prose td { text-align: left; }
table.prose td { white-space: normal; overflow-wrap: break-word; max-width: 24rem; }
"""


@dataclass(frozen=True)
class Link:
    text: str
    url: str


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


@dataclass(frozen=True)
class Section:
    title: str
    paragraphs: Sequence[str] = ()
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = field(default=())


def write(folder: Path, title: str, introduction: Sequence[str], sections: Sequence[Section]) -> None:
    """Write report.md with its pictures and report.html; the first section may have an empty title."""
    folder.mkdir(parents=True, exist_ok=True)
    for picture in (picture for section in sections for picture in section.pictures):
        path = folder / picture.name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(picture.content)
    # Bytes, because text mode would write other newlines on other systems.
    (folder / "report.md").write_bytes(_markdown_page(title, introduction, sections).encode())
    (folder / "report.html").write_bytes(_html_page(title, introduction, sections).encode())


# ---- figures as text


def score_text(score: Mapping[str, Any] | float | None) -> str:
    """A score of metrics.json as "78.3 (75.9–80.6)", a published percentage as "44.2"."""
    if isinstance(score, Mapping):
        if score["accuracy"] is None:
            return NOTHING
        text = f"{100 * score['accuracy']:.1f}"
        if score["ci95"]:
            low, high = score["ci95"]
            text += f" ({100 * low:.1f}–{100 * high:.1f})"
        return text
    return NOTHING if score is None or np.isnan(score) else f"{score:.1f}"


def points(difference: float | None, interval: Sequence[float] | None) -> str:
    if difference is None:
        return NOTHING
    text = f"{100 * difference:+.1f}"
    return text if not interval else f"{text} ({100 * interval[0]:+.1f} to {100 * interval[1]:+.1f})"


def p_value(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def percent(fraction: float | None) -> str:
    return NOTHING if fraction is None else f"{100 * fraction:.1f}"


def share(count: int, total: int) -> str:
    return f"{count:,} ({100 * count / total:.1f} %)" if total else NOTHING


def counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def plain(value: Any) -> str:
    """Any value of a data file as one short line of printable text."""
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return NOTHING
    line = " ".join(str(value).split())
    line = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in line)
    return line if len(line) <= EXCERPT_CHARS else line[: EXCERPT_CHARS - 1] + "…"


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Columns for a terminal: the first to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


# ---- Markdown


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
    url = _safe_url(cell.url)
    return f"[{_markdown_text(cell.text)}](<{url}>)" if url else _markdown_text(cell.text)


def _safe_url(url: str) -> str:
    """An address that cannot run anything or end the markup that it stands in; empty where there is none."""
    scheme = re.match(r"\s*([\w+.-]+):", url)
    if scheme and scheme[1].lower() not in ("http", "https"):
        return ""
    return re.sub(r"[\s<>\"'|\\]", lambda found: f"%{ord(found[0]):02X}", url)


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


# ---- HTML


def _html_page(title: str, introduction: Sequence[str], sections: Sequence[Section]) -> str:
    blocks = [f"<h1>{html.escape(title)}</h1>", *(f"<p>{html.escape(text)}</p>" for text in introduction)]
    for section in sections:
        if section.title:
            blocks.append(f"<h2>{html.escape(section.title)}</h2>")
        blocks += (f"<p>{html.escape(text)}</p>" for text in section.paragraphs)
        blocks += map(_html_table, section.tables)
        blocks += map(_html_picture, section.pictures)
    head = f'<meta charset="utf-8">\n<title>{html.escape(title)}</title>\n<style>{STYLE}</style>'
    body = "\n".join(blocks)
    return f'<!doctype html>\n<html lang="en">\n<head>\n{head}\n</head>\n<body>\n{body}\n</body>\n</html>\n'


def _html_table(table: Table) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in table.headers)
    rows = "\n".join("<tr>" + "".join(f"<td>{_html_cell(cell)}</td>" for cell in row) + "</tr>" for row in table.rows)
    kind = ' class="prose"' if table.is_prose else ""
    return f'<div class="wide"><table{kind}>\n<tr>{head}</tr>\n{rows}\n</table></div>'


def _html_cell(cell: Cell) -> str:
    if isinstance(cell, str):
        return html.escape(cell)
    url = _safe_url(cell.url)
    return f'<a href="{html.escape(url)}">{html.escape(cell.text)}</a>' if url else html.escape(cell.text)


def _html_picture(picture: Picture) -> str:
    kind = "png" if picture.name.endswith(".png") else "jpeg"
    content = base64.b64encode(picture.content).decode("ascii")
    image = f'<img alt="{html.escape(picture.text)}" src="data:image/{kind};base64,{content}">'
    caption = f"<figcaption>{html.escape(picture.text)}</figcaption>" if picture.has_caption else ""
    return f"<figure>{image}{caption}</figure>"
