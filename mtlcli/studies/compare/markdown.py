"""A comparison as a Markdown document."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mtlcli.studies.compare.document import Document
from mtlcli.studies.compare.tables import header, tables

PICTURES = ("delta_m", "tasks", "cost")


def to_markdown(document: Document) -> str:
    """`comparison.md`: all tables, with what is to be known to read them, and the pictures beside it."""
    lines = [f"# {document['name']}: comparison", ""]
    lines += [*(f"* {line}" for line in header(document)), ""]
    for sentence in document["findings"]:
        lines += [sentence, ""]
    for warning in document["warnings"]:
        lines += [f"> **Warning**: {warning}", ""]
    for table in tables(document):
        lines += [f"## {table.title}", *rows_of(table.rows), ""]
        for note in table.notes:
            lines += [note, ""]
    lines += [f"![{name}]({name}.png)" for name in PICTURES]
    return "\n".join(lines) + "\n"


def rows_of(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """The lines of a Markdown table; the first row is its head."""
    head, *body = [[" ".join(cell.replace("|", "\\|").split()) for cell in row] for row in rows]
    yield f"| {' | '.join(head)} |"
    yield f"| --- |{' ---: |' * (len(head) - 1)}"
    for row in body:
        yield f"| {' | '.join(row)} |"
