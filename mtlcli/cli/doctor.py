"""`mtl doctor`: a check of the installation and the machine."""

from __future__ import annotations

from typing import Annotated

import typer

from mtlcli.cli.arguments import Json, examples


@examples("mtl doctor", "mtl doctor --run-root /tmp/runs")
def doctor(
    run_root: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Folder of the runs to check. Default: $MTL_RUNS or runs/.")
    ] = None,
    json: Json = False,
) -> None:
    """Check versions, devices, threads, data and the run folder.

    The exit code is 1 if a problem would prevent training.
    """
    import platform
    import tempfile

    import torch

    from mtlcli.cli.output import print_json
    from mtlcli.data.download.status import list_datasets, list_weights
    from mtlcli.errors import MtlError
    from mtlcli.files import given_path
    from mtlcli.training.device import devices, thread_limit
    from mtlcli.training.run_folder import device_name, versions
    from mtlcli.training.run_folder import run_root as default_root
    from mtlcli.version import __version__

    problems = []
    root = default_root() if run_root is None else given_path(run_root, "--run-root")
    existing = next(path for path in [root.absolute(), *root.absolute().parents] if path.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        problems.append(f"run folder {root}: can't be written: {error.strerror or error}")
    packages = versions()
    problems += [f"package {name} is not installed" for name, version in packages.items() if version is None]
    facts = {
        "mtl": __version__,
        "python": platform.python_version(),
        "packages": packages,
        "devices": [device_name(torch.device(name)) for name in devices()],
        "threads": thread_limit(),
        "data": list_datasets(),
        "weights": list_weights(),
        "runs": str(root),
        "problems": problems,
    }
    if json:
        print_json(facts)
    else:
        for key, value in facts.items():
            items = value.items() if isinstance(value, dict) else None
            print(f"{key}: {', '.join(f'{k} {v}' for k, v in items) if items else value}")
    if problems:
        raise MtlError("\n".join(problems))
