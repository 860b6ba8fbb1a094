"""Text that came from a file or a command line, as a terminal may be given it.

Floor: the lowest; imports nothing of `mtlcli`.
"""

from __future__ import annotations

LONGEST = 4000  # characters of a line


def printable(text: str) -> str:
    """The text in one line: escaped where a terminal would act on it (colours, line breaks, writing from right to
    left), and cut where it is too long to read.
    """
    shown = text if text.isprintable() else "".join(one if one.isprintable() else _escaped(one) for one in text)
    return shown if len(shown) <= LONGEST else shown[: LONGEST - 1] + "…"


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")
