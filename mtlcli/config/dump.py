"""Conversion of plain data to YAML, which `config.yaml` parses to the same data."""

from __future__ import annotations

import re
from typing import Any

import yaml

from mtlcli.config import scalars
from mtlcli.config.scalars import escape


class _Dumper(yaml.SafeDumper):
    """Dumper that quotes all strings that YAML 1.1 or 1.2 would resolve to another type, and writes no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        """Return True: write every value in full."""
        return True


def _string(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    # line breaks that PyYAML writes unescaped and folds on parsing
    style = '"' if re.search("[\x85\u2028\u2029]", text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style)


_Dumper.add_representer(str, _string)
for _tag, _patterns in {
    "int": (scalars.INT, scalars.OCTAL, scalars.HEXADECIMAL),
    "float": (scalars.FLOAT, scalars.INFINITY, scalars.NAN),
}.items():
    for _pattern in _patterns:
        _whole = re.compile(rf"(?:{_pattern.pattern})\Z")
        _Dumper.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", _whole, None)


def dump_yaml(plain: Any) -> str:
    """Convert plain data (dicts with string keys, lists, strings, numbers, booleans, None) to YAML."""
    text: str = yaml.dump(
        _escaped(plain), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120, default_flow_style=None
    )
    return text


def _escaped(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _escaped(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_escaped(item) for item in value]
    return escape(value) if isinstance(value, str) else value
