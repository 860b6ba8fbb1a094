"""The JSON Schema (draft 2020-12) of an experiment file, with every component's options: for editors."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from mtlcli.config.schema import Experiment

EXPRESSION = {"type": "string", "pattern": r"^\$\{[A-Za-z_][A-Za-z0-9_]*(:[^}]*)?\}$"}
ABOUT = ("title", "description", "default")  # what a schema says about a value without restricting it


def json_schema() -> dict[str, Any]:
    """The schema, knowing the components that are registered at this moment."""
    schema = Experiment.model_json_schema(mode="validation")
    schema["required"].remove("name")  # the file's own name stands in
    schema = _strict(schema)
    return {"$schema": GenerateJsonSchema.schema_dialect, "title": "mtl experiment", **schema}


def _strict(schema: Any) -> Any:
    """Closes mappings to other keys, and lets `${ENV}` stand where a number or a choice is wanted."""
    if isinstance(schema, list):
        return [_strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {
        # What these hold are data and names, not schemas.
        key: value if key in ("default", "const", "enum", "required") else _strict(value)
        for key, value in schema.items()
    }
    if "patternProperties" in strict and "additionalProperties" not in strict:
        strict["additionalProperties"] = False
    if strict.get("type") in ("integer", "number", "boolean") or isinstance(strict.get("enum"), list):
        about = {key: strict.pop(key) for key in ABOUT if key in strict}
        return {**about, "anyOf": [strict, EXPRESSION]}
    return strict
