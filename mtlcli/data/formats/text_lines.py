"""The lines of a text file, checked on the way, with the place of what is wrong in them."""

from __future__ import annotations

import io
import re
from pathlib import Path
from types import TracebackType

from mtlcli.data.formats.compressed import describe_error, open_decompressed, verify_compressed
from mtlcli.errors import ConfigError

LONGEST = 2**23  # characters of a row: 50,000 columns of 160 each
ESCAPED = re.compile(r"[\ud800-\udfff]")  # how Python reads, with `surrogateescape`, a byte that is no UTF-8
# The first bytes of files that aren't text in UTF-8 → what they are, and the remedy.
FORMATS = {
    b"PK\x03\x04": "a zip archive or a spreadsheet (.xlsx): unpack it, or save the sheet as CSV",
    b"\xd0\xcf\x11\xe0": "a spreadsheet (.xls): save the sheet as CSV",
    b"PAR1": "a Parquet file: write it as CSV, such as with pandas.read_parquet(…).to_csv(…, index=False)",
    b"\x1f\x8b": "compressed by gzip: give its name the ending .gz",
    b"BZh": "compressed by bzip2: decompress it, or compress it by gzip (.gz)",
    b"\xfd7zXZ": "compressed by xz: decompress it, or compress it by gzip (.gz)",
    b"(\xb5/\xfd": "compressed by zstd: decompress it, or compress it by gzip (.gz)",
    b"\xff\xfe": "text in UTF-16: save it as UTF-8",
    b"\xfe\xff": "text in UTF-16: save it as UTF-8",
    b'{"': "JSON: write it as CSV, such as with pandas.read_json(…, lines=True).to_csv(…, index=False)",
    b"[{": "JSON: write it as CSV, such as with pandas.read_json(…).to_csv(…, index=False)",
}


class Lines:
    """An iterator over the lines of a file, plain or .gz, in UTF-8, however they end; they keep their ends.

    line: the number of the line at hand, from 1. row: that of the line in which the row at hand begins, for the rows
    of a table, which may go over several lines: whoever makes rows of them calls `end_row` after each. ended: whether
    there is no further line.

    ConfigError, with the line, for a file that can't be read, bytes that are no UTF-8, the character NUL, and a row
    that is longer than any table's.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.line, self.row, self.ended = 0, 1, False
        self._room = LONGEST

    def __enter__(self) -> Lines:
        try:
            verify_compressed(self.path)  # it takes far less time than making a table of it
            with open_decompressed(self.path) as file:
                start = file.read(8)
            self._file = io.TextIOWrapper(
                open_decompressed(self.path), encoding="utf-8-sig", errors="surrogateescape", newline=""
            )
        except (OSError, ValueError) as error:
            raise ConfigError(f"{self.path}: can't be read as a table: {describe_error(error)}") from error
        if known := next((words for mark, words in FORMATS.items() if start.startswith(mark)), None):
            self._file.close()
            raise ConfigError(f"{self.path}: can't be read as a table: it is {known}")
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
            raise self._error(f"can't be read as a table: {describe_error(error)}") from error
        if not line:
            self.line -= 1
            self.ended = True
            raise StopIteration
        self._room -= len(line)
        if "\0" in line or not line.isascii():
            self._check(line)
        if self._room <= 0:
            raise self._error(f"a row of more than {LONGEST:,} characters, which no table has")
        return line

    def end_row(self) -> None:
        self.row = self.line + 1
        self._room = LONGEST

    def _check(self, line: str) -> None:
        if found := ESCAPED.search(line):
            byte = ord(found[0]) - 0xDC00
            raise self._error(
                f"is no UTF-8 text: it has the byte 0x{byte:02X} at character {found.start() + 1}; save the file as "
                "UTF-8"
            )
        if "\0" in line:
            raise self._error(f"is no text: it has the character NUL at character {line.index(chr(0)) + 1}")

    def _error(self, message: str) -> ConfigError:
        return ConfigError(f"{self.path}:{self.line}: {message}")
