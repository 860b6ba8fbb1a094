"""Tokens of texts on disk, so that the same texts are tokenized once."""

from __future__ import annotations

import logging
from pathlib import Path
from zipfile import BadZipFile
from zlib import error as ZlibError

import numpy as np
import torch

from mtlcli.data.formats.token_rows import TokenRows, TokenWords
from mtlcli.errors import MtlError
from mtlcli.files import atomic_write

log = logging.getLogger("mtl")


def read_tokens(path: Path) -> TokenRows | None:
    """Read stored tokens; the checksums of the file's format are verified.

    Args:
        path: the file.

    Returns:
        The examples; None if the file doesn't exist or is damaged.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            ids, types, starts, truncated = (stored[name] for name in ("ids", "types", "starts", "truncated"))
            texts = int(stored["texts"])
            numbers, counts = stored["words"], stored["counts"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, BadZipFile, ZlibError) as error:
        log.info("%s is damaged and is written again: %s", path, error)
        return None
    whole = torch.from_numpy(types) if len(types) else None
    words = TokenWords(numbers, counts) if len(counts) else None
    return TokenRows(torch.from_numpy(ids), whole, torch.from_numpy(starts), truncated, texts, words)


def write_tokens(path: Path, tokens: TokenRows) -> None:
    """Store tokens; a folder that can't be written to is reported, and is no error.

    Args:
        path: the file.
        tokens: the examples, on the CPU.
    """
    types = np.empty(0, np.uint8) if tokens.types is None else tokens.types.numpy()
    words = tokens.words or TokenWords(np.empty(0, np.int32), np.empty(0, np.int64))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary, temporary.open("wb") as file:
            np.savez(
                file, ids=tokens.ids.numpy(), types=types, starts=tokens.starts.numpy(), truncated=tokens.truncated,
                texts=np.int64(tokens.texts), words=words.numbers, counts=words.counts,
            )  # fmt: skip
    except (OSError, MtlError) as error:
        log.info("the tokens can't be stored, and will be made again: %s", error)
