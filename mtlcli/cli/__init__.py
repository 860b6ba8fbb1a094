"""Command line of `mtl`, with one file per verb. No other package prints."""

from mtlcli.cli.app import app, main

__all__ = ["app", "main"]
