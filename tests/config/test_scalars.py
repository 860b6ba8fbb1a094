import math

import pytest

from mtlcli.config.scalars import MAX_DIGITS, resolve


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1E5", 1e5),
        ("1.", 1.0),
        (".5", 0.5),
        ("-.5e+2", -50.0),
        ("+3.25", 3.25),
        ("012", 12),
        ("-07", -7),
        ("+1", 1),
        ("0o14", 12),
        ("0x1F", 31),
        ("true", True),
        ("FALSE", False),
        ("null", None),
        ("~", None),
        ("", None),
        (".inf", math.inf),
        ("-.INF", -math.inf),
        ("yes", "yes"),
        ("No", "No"),
        ("on", "on"),
        ("off", "off"),
        ("tRue", "tRue"),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("2024-01-31", "2024-01-31"),
        ("0b11", "0b11"),
        ("-0x1F", "-0x1F"),
        ("e5", "e5"),
        (".", "."),
        ("1e", "1e"),
        ("inf", "inf"),
        ("nan", "nan"),
        ("٣", "٣"),
        ("5\n", "5\n"),
    ],
)
def test_scalars_follow_yaml_1_2(text: str, value: object) -> None:
    assert resolve(text) == value
    assert type(resolve(text)) is type(value)


@pytest.mark.parametrize("text", [".nan", ".NaN", ".NAN"])
def test_not_a_number(text: str) -> None:
    value = resolve(text)
    assert isinstance(value, float) and math.isnan(value)


def test_integers_with_too_many_digits() -> None:
    assert resolve("9" * MAX_DIGITS) == 10**MAX_DIGITS - 1
    with pytest.raises(ValueError, match="digits"):
        resolve("9" * (MAX_DIGITS + 1))
