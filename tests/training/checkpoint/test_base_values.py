"""Values that a checkpoint leaves out, and that a model built from the base fills in."""

from typing import Any

import pytest
import torch

from mtlcli.errors import ConfigError
from mtlcli.training.checkpoint.base_files import BaseFile, BaseReference
from mtlcli.training.checkpoint.base_values import fill_in_base, hash_value, leave_out_base

FROZEN, TRAINED = torch.arange(6.0).reshape(2, 3), torch.ones(3)


def reference(**values: torch.Tensor) -> BaseReference:
    files = (BaseFile("model.safetensors", 7, "0" * 64),)
    return BaseReference("model", "tiny", "/tiny", files, {key: hash_value(value) for key, value in values.items()})


@pytest.fixture
def payload() -> dict[str, Any]:
    return {"model": {"frozen": FROZEN, "trained": TRAINED}, "base": {"tokenizer": "text"}}


def test_left_out_values_are_filled_in(payload: dict[str, Any]) -> None:
    saved = leave_out_base(payload, reference(frozen=FROZEN))
    assert list(saved["model"]) == ["trained"]
    assert saved["base"] == {"tokenizer": "text"}
    filled = fill_in_base(saved, {"frozen": FROZEN.clone(), "trained": torch.zeros(3)}, "a.pt")
    assert torch.equal(filled["frozen"], FROZEN)
    assert torch.equal(filled["trained"], TRAINED)


def test_a_value_that_has_changed_is_kept(payload: dict[str, Any]) -> None:
    saved = leave_out_base(payload, reference(frozen=FROZEN + 1, trained=TRAINED))
    assert list(saved["model"]) == ["frozen"]
    assert "reference" not in leave_out_base(payload, reference(frozen=FROZEN + 1))


def test_other_values_are_refused(payload: dict[str, Any]) -> None:
    saved = leave_out_base(payload, reference(frozen=FROZEN))
    with pytest.raises(ConfigError, match=r"a\.pt refers to weights of its base, .* other values here: frozen"):
        fill_in_base(saved, {"frozen": FROZEN + 1}, "a.pt")
    with pytest.raises(ConfigError, match="this model has none of these names"):
        fill_in_base(saved, {}, "a.pt")


def test_values_on_meta_are_not_compared(payload: dict[str, Any]) -> None:
    saved = leave_out_base(payload, reference(frozen=FROZEN))
    assert fill_in_base(saved, {"frozen": FROZEN.to("meta")}, "a.pt")["frozen"].is_meta


def test_the_hash_depends_on_type_shape_and_bits() -> None:
    values = [FROZEN, FROZEN.reshape(3, 2), FROZEN.double(), FROZEN.bfloat16(), FROZEN + 1, torch.tensor(1.0)]
    assert len({hash_value(value) for value in values}) == len(values)
    assert hash_value(FROZEN.T.contiguous().T) == hash_value(FROZEN)
