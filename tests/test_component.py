"""Attribution of errors to the options of components."""

import pytest

from mtlcli.component import blame_options
from mtlcli.errors import MtlError, OptionError


def make(*, lr: float = 0.1, betas: tuple[float, float] = (0.9, 0.99), size: int, odd: bool = False) -> str:
    if lr < 0:
        raise ValueError(f"Invalid learning rate: {lr}")
    if max(betas) > 1:
        raise ValueError("beta out of range.")
    if size == 0:
        raise ZeroDivisionError
    if odd and size % 2 == 0:
        raise KeyError("odd: True")
    return "made"


@pytest.mark.parametrize(
    ("options", "refused"),
    [
        ({"lr": -1.0, "size": 1}, {"lr": "Invalid learning rate: -1.0"}),
        ({"betas": (2.0, 0.5), "size": 1}, {"betas": "beta out of range, found [2.0, 0.5]"}),
        ({"betas": (2.0, 0.5), "lr": -1.0, "size": 1},
         {"betas": "beta out of range, found [2.0, 0.5]", "lr": "Invalid learning rate: -1.0"}),
        ({"lr": 0.2, "size": 0}, {"size": "leads to a division by zero, found 0"}),
        ({"size": 2, "odd": True}, {"odd": "KeyError: 'odd: True'"}),
    ],
)  # fmt: skip
def test_the_options_to_blame(options: dict[str, object], refused: dict[str, str]) -> None:
    with pytest.raises(OptionError) as caught:
        blame_options(make, options, required=["size"], sole=True)
    assert caught.value.refused == refused


def test_valid_options_return_the_result() -> None:
    assert blame_options(make, {"lr": 0.2, "size": 3}, required=["size"]) == "made"


def test_an_error_without_a_responsible_option_passes_through() -> None:
    def fail(**options: float) -> None:
        raise ValueError("not your options' fault")

    with pytest.raises(ValueError, match="fault"):
        blame_options(fail, {"lr": 1.0})

    def refuse(**options: float) -> None:
        raise MtlError("ours")

    with pytest.raises(MtlError, match="ours"):
        blame_options(refuse, {"lr": 1.0})
