"""Errors while examples are read, with the dataset they belong to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch

from mtlcli.blame import described
from mtlcli.errors import ConfigError, InterruptedRunError, MtlError


@contextmanager
def naming(alias: str) -> Iterator[None]:
    """Raise an MtlError of dataset `alias` again with the key `datasets.<alias>`; a signal is passed on."""
    key = f"datasets.{alias}"
    try:
        yield
    except InterruptedRunError:
        raise
    except ConfigError as error:
        problems = [one if one.path or one.mark else replace(one, path=key) for one in error.problems]
        raise ConfigError(problems) from error
    except MtlError as error:
        if str(error).startswith(f"{key}: "):
            raise
        raise MtlError("\n".join(f"{key}: {line}" for line in str(error).splitlines())) from error


@contextmanager
def reading(alias: str) -> Iterator[None]:
    """Like `naming`, also of what the dataset's own code raises while its examples are read.

    A lack of memory is passed on.
    """
    with naming(alias):
        try:
            yield
        except (MtlError, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            if "can't allocate memory" in str(error):
                raise
            raise MtlError(unreadable(error)) from error


def unreadable(error: Exception) -> str:
    """One line for an exception of a dataset's own code."""
    return f"the examples can't be read: {described(error)}"
