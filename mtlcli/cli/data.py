"""`mtl data fetch NAME…` and `mtl data list`."""

from __future__ import annotations

from typing import Annotated

import typer

from mtlcli.cli.arguments import Plugins

data = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Get data, verify checksums.")

Root = Annotated[str | None, typer.Option(help="Folder of the data; by default $MTL_DATA, else data/.")]


@data.command()
def fetch(
    names: Annotated[list[str], typer.Argument(metavar="NAME", help="Datasets, as `mtl data list` shows them.")],
    root: Root = None,
    plugin: Plugins = None,
) -> None:
    """Fetch the files of datasets that are missing or damaged, and verify all of them."""
    from mtlcli.data.download.collection import data_root, fetch_files
    from mtlcli.data.download.status import expand_names, get_dataset_class
    from mtlcli.errors import MtlError

    failed: list[str] = []
    for name, dataset in {name: get_dataset_class(name) for name in expand_names(names)}.items():
        if dataset.collection is None:
            print(f"{name}: nothing to fetch: {dataset.origin}")
            continue
        folder = dataset.collection.raw(data_root(root))
        try:
            for file, origin in fetch_files(name, dataset.collection, data_root(root)).items():
                print(f"{name}: {folder / file}: checksum ok, {origin}")
        except MtlError as error:  # the others may still be had
            failed.append(str(error))
    if failed:
        raise MtlError("\n".join(failed))


@data.command("list")
def list_(root: Root = None, plugin: Plugins = None) -> None:
    """Show which datasets there are, and which of their files are here and whole."""
    from mtlcli.cli import table
    from mtlcli.data.download.status import check_dataset
    from mtlcli.registry import datasets

    found = [check_dataset(name, root) for name in datasets.names()]
    rows = [["dataset", "files", "folder", "from"]]
    rows += [[one.name, one.files or "-", one.folder or "-", one.origin] for one in found]
    for line in table.lines(rows):
        print(line)
