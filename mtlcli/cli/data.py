"""`mtl data fetch` and `mtl data list`."""

from __future__ import annotations

from typing import Annotated

import typer

from mtlcli.cli.arguments import CONTEXT, Plugins, add_verb, examples

data = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings=CONTEXT,
    help="Download datasets and pretrained weights, and verify their checksums.",
)

Root = Annotated[str | None, typer.Option(metavar="FOLDER", help="Folder of the data. Default: $MTL_DATA or data/.")]


@examples("mtl data fetch mnist fashion_mnist", "mtl data fetch minilm --root ~/data")
def fetch(
    names: Annotated[
        list[str],
        typer.Argument(metavar="NAME", help="Datasets and pretrained weights, by their names in `mtl data list`."),
    ],
    root: Root = None,
    plugin: Plugins = None,
) -> None:
    """Download missing or damaged files, and verify all of them."""
    from mtlcli.data.download.collection import data_root, fetch_files
    from mtlcli.data.download.status import collections_of
    from mtlcli.errors import MtlError

    failed: list[str] = []
    for name, collection in collections_of(names).items():
        if isinstance(collection, str):
            print(f"{name}: nothing to download: {collection}")
            continue
        folder = collection.raw(data_root(root))
        try:
            for file, origin in fetch_files(name, collection, data_root(root)).items():
                print(f"{name}: {folder / file}: checksum ok, {origin}")
        except MtlError as error:  # continue with the others
            failed.append(str(error))
    if failed:
        raise MtlError("\n".join(failed))


@examples("mtl data list")
def list_datasets(root: Root = None, plugin: Plugins = None) -> None:
    """List the datasets and the pretrained weights, and the state of their files."""
    from mtlcli.cli import table
    from mtlcli.data.download.status import check_dataset, check_weights
    from mtlcli.pretrained import WEIGHTS
    from mtlcli.registry import datasets

    sections = {
        "dataset": [check_dataset(name, root) for name in datasets.names()],
        "weights": [check_weights(name, root) for name in WEIGHTS],
    }
    for heading, statuses in sections.items():
        rows = [[heading, "files", "folder", "from"]]
        rows += [[status.name, status.files or "-", status.folder or "-", status.origin] for status in statuses]
        print("" if heading == "dataset" else "\n", end="")
        for line in table.align_text(rows):
            print(line)


add_verb(data, "fetch", fetch)
add_verb(data, "list", list_datasets)
