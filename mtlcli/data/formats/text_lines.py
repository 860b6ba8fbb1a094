"""Lines of a text file, with checks of its encoding and the line numbers of errors."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO

from mtlcli.data.formats.compressed import SUFFIXES, describe_os_error, open_decompressed
from mtlcli.errors import ConfigError

MAX_ROW_CHARACTERS = 2**23  # characters of a row: 50,000 columns of 160 each
BYTE_ORDER_MARK = "\ufeff"
ESCAPED = re.compile(r"[\ud800-\udfff]")  # bytes that are not UTF-8, as decoded by Python with `surrogateescape`
# First bytes of a file that is not text in UTF-8 → its format, and the remedy.
FORMATS = {
    b"PK\x03\x04": "a zip archive or a spreadsheet (.xlsx): unpack it, or save the sheet as CSV",
    b"\xd0\xcf\x11\xe0": "a spreadsheet (.xls): save the sheet as CSV",
    b"PAR1": "a Parquet file: give its name the ending .parquet",
    b"\x1f\x8b": "compressed by gzip: give its name the ending .gz",
    b"BZh": "compressed by bzip2: decompress it, or compress it by gzip (.gz)",
    b"\xfd7zXZ": "compressed by xz: decompress it, or compress it by gzip (.gz)",
    b"(\xb5/\xfd": "compressed by zstd: give its name the ending .zst",
    b"\xff\xfe": "text in UTF-16: save it as UTF-8",
    b"\xfe\xff": "text in UTF-16: save it as UTF-8",
}
NOT_DELIMITED = FORMATS | {
    b'{"': "JSON: if it has one object in each line, give its name the ending .jsonl",
    b"[{": "a JSON array: write one object in each line, such as with pandas.read_json(…).to_json(…, "
           "orient=\"records\", lines=True), into a file with the ending .jsonl",
}  # fmt: skip


class Lines:
    """Iterator over the lines of a UTF-8 file, plain or compressed, with any line ending. Lines keep their endings.

    Raises a ConfigError if the file can't be read, is not UTF-8, or has a NUL character or a row that is too
    long; with the line.

    Args:
        path: the file.
        offset: number of uncompressed bytes to skip.
        line: number of lines in these bytes.

    Attributes:
        line: number of the current line, from 1.
        offset: number of uncompressed bytes up to its end.
        row: number of the line in which the current row begins. A row of a table can span several lines, so `end_row`
            must be called after each.
        ended: True after the last line.
    """

    def __init__(self, path: Path, offset: int = 0, line: int = 0) -> None:
        self.path, self.offset = path, offset
        self.line, self.row, self.ended = line, line + 1, False
        self._room = MAX_ROW_CHARACTERS

    def __enter__(self) -> Lines:
        file = open_text(self.path, self.offset, NOT_DELIMITED)
        self._file = io.TextIOWrapper(file, encoding="utf-8", errors="surrogateescape", newline="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()

    def __iter__(self) -> Lines:
        return self

    def __next__(self) -> str:
        self.line += 1
        try:
            line = self._file.readline(self._room)
        except OSError as error:
            raise self._error(f"can't be read as a table: {describe_os_error(error)}") from error
        if not line:
            self.line -= 1
            self.ended = True
            raise StopIteration
        self._room -= len(line)
        self.offset += len(line) if line.isascii() else len(line.encode("utf-8", "surrogateescape"))
        if self.line == 1:
            line = line.removeprefix(BYTE_ORDER_MARK)
        if "\0" in line or not line.isascii():
            self._check(line)
        if self._room <= 0:
            raise self._error(f"the row has more than {MAX_ROW_CHARACTERS:,} characters")
        return line

    def end_row(self) -> None:
        """Start a new row."""
        self.row = self.line + 1
        self._room = MAX_ROW_CHARACTERS

    def _check(self, line: str) -> None:
        if match := ESCAPED.search(line):
            byte = ord(match[0]) - 0xDC00
            raise self._error(
                f"is not UTF-8 text: it has the byte 0x{byte:02X} at character {match.start() + 1}; save the file as "
                "UTF-8"
            )
        if "\0" in line:
            raise self._error(f"is not text: it has the character NUL at character {line.index(chr(0)) + 1}")

    def _error(self, message: str) -> ConfigError:
        return ConfigError(f"{self.path}:{self.line}: {message}")


def open_text(path: Path, offset: int = 0, refused: Mapping[bytes, str] = FORMATS) -> IO[bytes]:
    """Open a file of text, plain or compressed.

    Args:
        path: the file.
        offset: number of uncompressed bytes to skip.
        refused: first bytes of a file in another format → the format, and the remedy.

    Returns:
        A stream of the uncompressed bytes.

    Raises:
        ConfigError: the file can't be opened, or is in another format.
    """
    try:
        if not offset:
            with open_decompressed(path) as file:
                start = file.read(8)
            if detected := next((text for magic, text in refused.items() if start.startswith(magic)), None):
                raise ConfigError(f"{path}: can't be read as a table: it is {detected}")
        file = open_decompressed(path)
        if path.suffix not in SUFFIXES:
            file.seek(offset)
        elif offset:
            while skipped := len(file.read(min(offset, 2**20))):
                offset -= skipped
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error
    return file


def unreadable(path: Path, error: Exception) -> ConfigError:
    """Return the error for a file that can't be read.

    Args:
        path: the file.
        error: the reason.

    Returns:
        The error to raise.
    """
    return ConfigError(f"{path}: can't be read as a table: {describe_os_error(error)}")
