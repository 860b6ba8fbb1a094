"""Notations of numbers and dates in tables: those that are read, and those that are only recognized."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, InvalidOperation
from functools import cached_property
from typing import Literal

import numpy as np

Floats = np.ndarray[tuple[int], np.dtype[np.float64]]
LARGEST = float(np.finfo(np.float32).max) / 2  # so that the difference of two is finite in float32
MANY = 5  # number of distinct values of one form from which a column is taken to have that form
SPACES = " \u00a0\u2009\u202f"  # the spaces that group digits: plain, no-break, thin, narrow no-break
DASHES = "\u2212\u2010\u2011\u2012\u2013\u2014\ufe63\uff0d"  # minus signs and dashes that stand for a hyphen
ISO = "ISO 8601"
TRUTH = dict.fromkeys(("true", "t", "yes", "y", "on"), "1") | dict.fromkeys(("false", "f", "no", "n", "off"), "0")
_EXACT = Context(prec=2**18, Emin=MIN_EMIN, Emax=MAX_EMAX, traps=[])  # more digits than a cell has characters


@dataclass(frozen=True)
class Notation:
    """Notation of a table's numbers and dates.

    Attributes:
        decimal: decimal mark.
        thousands: mark between groups of three digits; "" for none.
        dates: (column, `strptime` format or `ISO`) of each column of dates, which are read as days since 1970-01-01,
            UTC.
        booleans: (column, words) of each column of truth values, which are read as 1 and 0. The words are those for 1
            and 0, or empty for those of `TRUTH`.
    """

    decimal: Literal[".", ","] = "."
    thousands: Literal["", ",", ".", " ", "'"] = ""
    dates: tuple[tuple[str, str], ...] = ()
    booleans: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def numbers(self, values: Sequence[str | None], column: str = "") -> tuple[Floats, list[int]]:
        """Parse values as numbers, as dates if the column is one of dates, or as truth values if it is one of those.

        A number must be finite in float32. `1_000` is not a number, although Python parses it as one.

        Args:
            values: values, None for a missing one.
            column: name of the column.

        Returns:
            float64 values, NaN for missing values and those that are not numbers; and the positions of the latter.
        """
        if self.booleans and (words := dict(self.booleans).get(column)) is not None:
            return _read_booleans(values, words)
        dates = dict(self.dates)
        if column not in dates and self._grouped is None and (plain := _plain_numbers(values)) is not None:
            return plain, []
        read = _DateReader(dates[column]) if column in dates else self._number
        parsed = np.full(len(values), np.nan)
        wrong = []
        for position, value in enumerate(values):
            if value is not None:
                try:
                    parsed[position] = read(value)
                except ValueError:
                    wrong.append(position)
                else:
                    if not abs(parsed[position]) <= LARGEST or "_" in value:
                        parsed[position] = np.nan
                        wrong.append(position)
        return parsed, wrong

    def declares(self, column: str) -> bool:
        """Return whether the user declared the column to hold dates or truth values."""
        return column in dict(self.dates) or column in dict(self.booleans)

    def canonical(self, value: str) -> str | None:
        """Return the canonical spelling of a number (`1` for `1`, `1.0`, `01` and `1e0`), or None for other values."""
        try:
            number = Decimal(self._plain(value))
        except (InvalidOperation, ValueError):
            return None
        if "_" in value or not number.is_finite():
            return None
        if number == 0:
            return "0"
        shortest = number.normalize(_EXACT)
        return str(shortest) if abs(number.adjusted()) > 40 else format(shortest, "f")

    def _number(self, value: str) -> float:
        return float(value if self._grouped is None else self._plain(value))

    def _plain(self, value: str) -> str:
        """Convert a number to Python's notation. ValueError if it is not in this notation."""
        if self._grouped is None:
            return value
        if not self._grouped.fullmatch(value):
            raise ValueError(value)
        for mark in SPACES if self.thousands == " " else self.thousands:
            value = value.replace(mark, "")
        return value.replace(self.decimal, ".")

    @cached_property
    def _grouped(self) -> re.Pattern[str] | None:
        """Pattern of a number in this notation; None for Python's own."""
        if (self.decimal, self.thousands) == (".", ""):
            return None
        mark = f"[{SPACES if self.thousands == ' ' else re.escape(self.thousands)}]" if self.thousands else "(?!)"
        whole = rf"(\d{{1,3}}({mark}\d{{3}})+|\d+)"
        return re.compile(rf"[+-]?({whole}({re.escape(self.decimal)}\d*)?|{re.escape(self.decimal)}\d+)([eE][+-]?\d+)?")


def _plain_numbers(values: Sequence[str | None]) -> Floats | None:
    """Fast path of `Notation.numbers` for Python's notation; None if a value is not a number."""
    try:
        parsed = np.array([math.nan if value is None else float(value) for value in values])
    except ValueError:
        return None
    fine = np.abs(parsed) <= LARGEST
    if fine.sum() + values.count(None) < len(values) or any("_" in value for value in values if value is not None):
        return None
    return parsed


def _read_booleans(values: Sequence[str | None], words: Sequence[str]) -> tuple[Floats, list[int]]:
    """Parse truth values, see `Notation.numbers`."""
    truth = {word.casefold(): str(1 - at) for at, word in enumerate(words)} if words else TRUTH
    numbers = {None: math.nan, "0": 0.0, "1": 1.0, "0.0": 0.0, "1.0": 1.0}
    spelled = [value if value is None else truth.get(value.casefold(), value) for value in values]
    parsed = np.array([numbers.get(value, math.nan) for value in spelled])
    return parsed, [at for at, value in enumerate(spelled) if value not in numbers]


class _DateReader:
    """Reads a date as days since 1970-01-01, in UTC unless it has a time zone. ValueError for other values."""

    def __init__(self, form: str) -> None:
        self.form = form

    def __call__(self, value: str) -> float:
        moment = datetime.fromisoformat(value) if self.form == ISO else datetime.strptime(value, self.form)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        passed = moment - datetime(1970, 1, 1, tzinfo=UTC)
        return passed.days + (passed.seconds + passed.microseconds / 1e6) / 86400


_ISO_DATE = r"\d{4}-(0[1-9]|1[0-2])-\d{2}([T ]\d{2}:?\d{2}(:?\d{2}([.,]\d+)?)?)?(Z|[+-]\d{2}(:?\d{2})?)?"
_DATES = (
    r"\d{4}-(0[1-9]|1[0-2])|\d{4}-(0[1-9]|1[0-2])-\d{2}[T ].*|\d{4}-\d{1,2}-\d{1,2}",
    r"(\d{1,2}[-/]\d{1,2}[-/](\d{4}|\d{2})|\d{1,2}\.\d{1,2}\.\d{4}|\d{4}[/.]\d{1,2}[/.]\d{1,2})([ T,].*\d)?",
    r"\d{1,2}[ .-]{1,2}[A-Za-z]{3,9}[ .,-]{1,2}\d{2,4}|[A-Za-z]{3,9}\.? \d{1,2},? \d{4}",
)
_DIGITS = rf"\d[\d.,']*(?:[{SPACES}]\d{{3}})*(?:[.,]\d+)?"
_NUMBER = rf"[+-]?{_DIGITS}"
_CURRENCY = r"(?:US|R|A|C)?[$€£¥₹₽₩₺₫฿]"
_BEFORE = rf"{_CURRENCY}|USD|EUR|GBP|CHF|JPY|CNY|INR|AUD|CAD|SEK|NOK|DKK|PLN|BRL|Rs\.?|kr\.?"
_UNIT = (
    rf"[+-]?(?P<before>{_BEFORE})[{SPACES}]?{_NUMBER}|"
    rf"{_NUMBER}[{SPACES}]?(?P<after>[%‰]|{_CURRENCY}|(?!(?:st|nd|rd|th)$)[A-Za-zµ°²³/ł]{{1,12}}\d?)"
)
# Form → pattern. The first pattern that matches a value determines its form.
_FORMS = {
    "ISO date": re.compile(_ISO_DATE),
    "date": re.compile("|".join(f"(?:{pattern})" for pattern in _DATES)),
    "time": re.compile(r"\d{1,2}:\d{2}(:\d{2}([.,]\d+)?)?( ?[AaPp]\.?[Mm]\.?)?"),
    "dot and comma": re.compile(r"[+-]?\d{1,3}(\.\d{3})+,\d+|[+-]?\d{1,3}(\.\d{3}){2,}"),
    "comma and dot": re.compile(r"[+-]?\d{1,3}(,\d{3})+\.\d+|[+-]?\d{1,3}(,\d{3}){2,}"),
    "comma": re.compile(r"[+-]?\d{1,3},\d{3}"),
    "decimal comma": re.compile(r"[+-]?\d*,\d+([eE][+-]?\d+)?"),
    "space": re.compile(rf"[+-]?\d{{1,3}}([{SPACES}]\d{{3}})+([.,]\d+)?"),
    "apostrophe": re.compile(r"[+-]?\d{1,3}('\d{3})+([.,]\d+)?"),
    "dash": re.compile(rf"[{DASHES}] ?{_DIGITS}([eE][+-]?\d+)?"),
    "brackets": re.compile(rf"\((?:{_BEFORE})? ?{_DIGITS}\)|-?(?:{_BEFORE})? ?\({_DIGITS}\)"),
    "minus behind": re.compile(rf"{_DIGITS}-"),
    "marked as text": re.compile(rf"'{_NUMBER}|=\"{_NUMBER}\""),
    "point": re.compile(r"[+-]?(\d+\.\d*|\.\d+)([eE][+-]?\d+)?"),  # a number in the default notation
    "unit": re.compile(_UNIT),
}
_ADVICE = {
    "ISO date": "a date: list the column under `dates` to read it as a number of days",
    "date": "a date: give the column and its format under `dates`, such as `dates: {day: \"%d.%m.%Y\"}`, to read it as "
            "a number of days",
    "time": "a time of day: write it as a number",
    "dot and comma": "a number with dots between thousands and a decimal comma: set `thousands: \".\"` and "
                     "`decimal: \",\"`",
    "comma and dot": "a number with commas between thousands: set `thousands: \",\"`",
    "comma": "a number with a decimal comma (set `decimal: \",\"`) or a comma between thousands (set "
             "`thousands: \",\"`)",
    "decimal comma": "a number with a decimal comma: set `decimal: \",\"`",
    "space": "a number with spaces between thousands: set `thousands: \" \"`",
    "apostrophe": "a number with apostrophes between thousands: set `thousands: \"'\"`",
    "point": "a number with a dot, and `decimal` is another mark: write all numbers of the file with one decimal mark, "
             "or set `thousands: \".\"` if the dot stands between thousands",
    "dash": "a negative number with a dash in place of the minus sign '-' (U+002D): replace the dash in the file",
    "brackets": "a negative number in brackets: write it with a minus sign in the file",
    "minus behind": "a negative number with the minus sign behind it: write the sign in front in the file",
    "marked as text": "a number that a spreadsheet has marked as text: remove the mark from the file",
}  # fmt: skip


def detect_notation(values: Sequence[str]) -> tuple[int, str] | None:
    """Detect numbers or dates in another notation, in more than half of distinct values none of which is a number.

    Args:
        values: the distinct values.

    Returns:
        Position of the first such value, and a description with the remedy; None for ordinary names.
    """
    forms = {at: form for at, value in enumerate(values) if (form := _match_form(value))}
    if not forms or 2 * len(forms) <= len(values):
        return None
    kinds = Counter(kind for kind, _ in forms.values())
    marks = set(kinds)
    if marks <= {"comma", "decimal comma", "dot and comma"} and marks != {"comma"}:  # the unambiguous forms decide
        common = "dot and comma" if "dot and comma" in marks else "decimal comma"
    elif marks == {"comma", "comma and dot"}:
        common = "comma and dot"
    else:
        common = kinds.most_common(1)[0][0]
    first = next((at for at, (kind, _) in forms.items() if kind == common), next(iter(forms)))
    if common == "time" and len(forms) < MANY:
        return None
    if common != "unit":
        return first, _ADVICE[common]
    unit, count = Counter(unit for kind, unit in forms.values() if kind == "unit").most_common(1)[0]
    if count < MANY or 2 * count <= len(values):
        return None
    return first, f"a number with the unit {unit!r}: remove the unit from the file"


_DOTTED = re.compile(r"[+-]?(\d{1,3}|[1-9]\d{0,2}(?P<thousands>\.\d{3}))")


def find_dotted_thousands(values: Sequence[str | None]) -> str | None:
    """Find a value whose dot may separate thousands.

    This is likely if some values are whole numbers below 1,000 and at least MANY others have three digits after a dot,
    some of which end in 0: the shortest decimals don't end in 0, and decimals of a fixed length all have a dot.

    Args:
        values: the distinct values, None for a missing one.

    Returns:
        The first value with a dot, or None if its dot is likely to be a decimal point.
    """
    dotted, whole = [], 0
    for value in values:
        if value is None:
            continue
        if (match := _DOTTED.fullmatch(value)) is None:
            return None
        if match["thousands"]:
            dotted.append(value)
        else:
            whole += 1
    likely = whole and len(dotted) >= MANY and any(value.endswith("0") for value in dotted)
    return dotted[0] if likely else None


def describe_notation(value: str) -> str | None:
    """Describe a value that is not a number but resembles one, with the remedy.

    Args:
        value: the value.

    Returns:
        The description, or None if the value doesn't resemble a number.
    """
    form = _match_form(value)
    if form is None:
        return None
    return _ADVICE.get(form[0], f"a number with the unit {form[1]!r}: remove the unit from the file")


def _match_form(value: str) -> tuple[str, str] | None:
    """Return the form of a value that is not a number, and its unit; None for other values."""
    for form, pattern in _FORMS.items():
        if match := pattern.fullmatch(value):
            return form, (match["before"] or match["after"]) if form == "unit" else ""
    return None
