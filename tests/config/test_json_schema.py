import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from mtlcli.config.schema import json_schema
from tests.config.experiments import GOOD, load

SHIPPED = sorted(Path(__file__).parents[2].joinpath("configs").rglob("*.y*ml"))


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return json_schema()


def accepts(schema: dict[str, Any], text: str) -> bool:
    plain = yaml.safe_load(text.replace("lr: 1e-3", "lr: 0.001"))
    return bool(jsonschema.Draft202012Validator(schema).is_valid(plain))


def test_the_schema_is_valid(schema: dict[str, Any]) -> None:
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    jsonschema.Draft202012Validator.check_schema(schema)
    json.dumps(schema)


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.name)
def test_shipped_experiments_are_valid(schema: dict[str, Any], file: Path) -> None:
    jsonschema.Draft202012Validator(schema).validate(yaml.safe_load(file.read_text(encoding="utf-8")))


def test_a_resolved_experiment_is_valid(schema: dict[str, Any], tmp_path: Path) -> None:
    jsonschema.Draft202012Validator(schema).validate(load(tmp_path).resolved())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("trunk: {name: mlp, hidden: [32], features: 8}", "trunk: mlp"),
        ("lr: 1e-3", "lr: '${LR:1e-3}'"),
        ("epochs: 2", "epochs: '${EPOCHS}'"),
        ("name: AdamW, ", ""),
    ],
)
def test_the_schema_accepts(schema: dict[str, Any], old: str, new: str) -> None:
    assert old in GOOD
    assert accepts(schema, GOOD.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("features: 8", "fetures: 8"),
        ("features: 8", "features: eight"),
        ("features: 8", "features: 0"),
        ("name: AdamW", "name: AdmaW"),
        ("trunk: {name: mlp, hidden: [32], features: 8}", "trunk: nothing"),
        ("trunk: {name: mlp, hidden: [32], features: 8}", "trunk: {features: 8}"),
        ("scheduler: {name: CosineAnnealingLR}", "scheduler: StepLR"),
        ("epochs: 2", "epoks: 2"),
        ("epochs: 2", "epochs: -2"),
        ("weight: 0.5", "weight: -0.5"),
        ("  ink:", "  1nk:"),
        ("dataset: images, target: digit, ", ""),
        ("seed: 3", "sede: 3"),
    ],
)
def test_the_schema_rejects(schema: dict[str, Any], old: str, new: str) -> None:
    assert old in GOOD
    assert not accepts(schema, GOOD.replace(old, new))


def test_options_have_the_descriptions_of_the_docstrings(schema: dict[str, Any]) -> None:
    trunks = {
        entry["properties"]["name"]["const"]: entry
        for entry in schema["properties"]["trunk"]["anyOf"]
        if "properties" in entry
    }
    assert trunks["mlp"]["description"].startswith("Fully connected")
    assert trunks["mlp"]["properties"]["features"]["description"] == "Width F of the output."
    assert "frozen" in trunks["mlp"]["properties"]
