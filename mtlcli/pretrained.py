"""Pretrained weights that `mtl data fetch` downloads, by name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mtlcli.errors import suggest
from mtlcli.files import data_root, user_path


@dataclass(frozen=True)
class PretrainedWeights:
    """The files of a pretrained network, in a folder of its name below the data root.

    Args:
        files: name → SHA-256 of the content, in hexadecimal.
        main: the file that a trunk loads; None: the trunk reads the folder.
    """

    files: Mapping[str, str]
    main: str | None


WEIGHTS: Mapping[str, PretrainedWeights] = {
    "minilm": PretrainedWeights(
        files={
            "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
            "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
            "modules.json": "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
            "1_Pooling/config.json": "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
            "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
        },
        main=None,
    ),
    "mobilenet_v2": PretrainedWeights(
        files={"mobilenet_v2-b0353104.pth": "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889"},
        main="mobilenet_v2-b0353104.pth",
    ),
    "efficientnet_lite0": PretrainedWeights(
        files={"efficientnet-lite0-57934424.pth": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"},
        main="efficientnet-lite0-57934424.pth",
    ),
}


def find_weights(name: str, root: str | None = None) -> Path | None:
    """Return the folder or file of pretrained weights. Checksums are not verified: `mtl data fetch` does so.

    Args:
        name: name of the weights, such as `minilm`.
        root: path of the data root, see `data_root`.

    Returns:
        The path: a folder, or the file of weights that consist of one; None if no weights have this name.

    Raises:
        ValueError: the weights have not been fetched; the message names the command.
    """
    weights = WEIGHTS.get(name)
    if weights is None:
        return None
    folder = data_root(root) / name
    if missing := [file for file in weights.files if not os.path.isfile(folder / file)]:  # noqa: PTH113 (never raises)
        raise ValueError(
            f"the weights {name!r} are not in {folder} (missing: {', '.join(missing)}): run `mtl data fetch {name}`, "
            "or set $MTL_DATA to the folder of the data"
        )
    return folder if weights.main is None else folder / weights.main


def locate_weights(text: str) -> Path:
    """Return the file of pretrained weights that a configuration names.

    Args:
        text: name of the weights, or path of a file.

    Returns:
        The path of a file.

    Raises:
        ValueError: no weights have this name and no file this path, or the weights have not been fetched.
    """
    path = find_weights(text) or user_path(text)
    if path.is_dir():
        raise ValueError(f"{text!r} is a folder; expected a file of weights, .pth or .safetensors")
    if not path.is_file():
        names = [name for name, weights in WEIGHTS.items() if weights.main is not None]
        raise ValueError(
            f"no file {text!r}, and no weights of this name.{suggest(text, names)} "
            f"Expected the path of a .pth or .safetensors file, or one of: {', '.join(names)}"
        )
    return path
