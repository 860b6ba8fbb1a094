"""`mtl schema`: the JSON Schema of experiment files, for editors."""

from __future__ import annotations

import json

from mtlcli.cli.arguments import Plugins, examples


@examples("mtl schema > mtl.schema.json")
def schema(plugin: Plugins = None) -> None:
    """Print the JSON Schema of experiment files.

    It contains the options of every component, so that an editor can complete and check experiments: write it to a
    file, and make "# yaml-language-server: $schema=mtl.schema.json" the first line of the experiment.
    """
    from mtlcli.config.schema import json_schema

    print(json.dumps(json_schema(), indent=2, ensure_ascii=False))
