"""`mtl data fetch` and `mtl data list`."""

from __future__ import annotations

from typing import Annotated

import typer

from mtlcli.cli.arguments import CONTEXT, Plugins, add_verb, examples

data = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings=CONTEXT,
    help="Download datasets and verify their checksums.",
)

Root = Annotated[str | None, typer.Option(metavar="FOLDER", help="Folder of the data. Default: $MTL_DATA or data/.")]


@examples("mtl data fetch mnist fashion_mnist", "mtl data fetch census_income --root ~/data")
def fetch(
    names: Annotated[list[str], typer.Argument(metavar="NAME", help="Datasets, by their names in `mtl data list`.")],
    root: Root = None,
    plugin: Plugins = None,
) -> None:
    """Download missing or damaged files, and verify all of them."""
    from mtlcli.data.download.collection import data_root, fetch_files
    from mtlcli.data.download.status import expand_names, get_dataset_class
    from mtlcli.errors import MtlError

    failed: list[str] = []
    for name, dataset in {name: get_dataset_class(name) for name in expand_names(names)}.items():
        if dataset.collection is None:
            print(f"{name}: nothing to download: {dataset.origin}")
            continue
        folder = dataset.collection.raw(data_root(root))
        try:
            for file, origin in fetch_files(name, dataset.collection, data_root(root)).items():
                print(f"{name}: {folder / file}: checksum ok, {origin}")
        except MtlError as error:  # continue with the others
            failed.append(str(error))
    if failed:
        raise MtlError("\n".join(failed))


@examples("mtl data list")
def list_datasets(root: Root = None, plugin: Plugins = None) -> None:
    """List the datasets and the state of their files."""
    from mtlcli.cli import table
    from mtlcli.data.download.status import check_dataset
    from mtlcli.registry import datasets

    statuses = [check_dataset(name, root) for name in datasets.names()]
    rows = [["dataset", "files", "folder", "from"]]
    rows += [[status.name, status.files or "-", status.folder or "-", status.origin] for status in statuses]
    for line in table.align_text(rows):
        print(line)


add_verb(data, "fetch", fetch)
add_verb(data, "list", list_datasets)
