"""`mtl schema`: what an experiment file may hold, for editors."""

from __future__ import annotations

import json

from mtlcli.cli.arguments import Plugins


def schema(plugin: Plugins = None) -> None:
    """Print the JSON Schema of experiment files.

    It knows every component's options. An editor completes and checks YAML with it: write it to a file
    (mtl schema > mtl.schema.json) and put "# yaml-language-server: $schema=mtl.schema.json" on the experiment's
    first line.
    """
    from mtlcli.config.schema import json_schema

    print(json.dumps(json_schema(), indent=2, ensure_ascii=False))
