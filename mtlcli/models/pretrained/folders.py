"""Files of a model: a local folder, or a model of the hub that was downloaded before."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mtlcli.files import quote_path, user_path
from mtlcli.pretrained import find_weights as find_named_weights
from mtlcli.specs import Pool

CONFIG, TOKENIZER = "config.json", "tokenizer.json"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
MOST_BYTES = {CONFIG: 2**22, INDEX: 2**26, TOKENIZER: 2**28}  # limits of what is read
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
POOLING_KEYS: dict[str, Pool] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_lasttoken": "last",
}


def find_model_folder(model: str) -> Path:
    """Return the folder of a model.

    Args:
        model: path of a folder; the name of weights that `mtl data fetch` downloads, such as `minilm`; or the id of a
            model of the hub, such as `org/name`. A model of the hub is looked up in the cache of `huggingface_hub`, and
            downloaded if it is not there, unless HF_HUB_OFFLINE is set.

    Returns:
        The folder.

    Raises:
        ValueError: if there is no such folder, or the model can't be downloaded.
    """
    path = user_path(model)
    if path.is_dir():
        return path
    if path.exists():
        raise ValueError(f"{quote_path(model)} is a file; expected the folder of a model, with its {CONFIG}")
    if (fetched := find_named_weights(model)) is not None:
        if fetched.is_file():
            raise ValueError(f"the weights {model!r} are a file for an image network; expected the folder of a model")
        return fetched
    if not HUB_ID.fullmatch(model) or model.startswith((".", "/", "~")):
        raise ValueError(f"no folder {quote_path(model)}; expected the folder of a model, or the id of one of the hub")
    return _hub_folder(model)


def _hub_folder(model: str) -> Path:
    try:
        from huggingface_hub import constants, snapshot_download
    except ImportError as error:
        raise ValueError("needs the package huggingface_hub: pip install 'mtlcli[text]'") from error
    patterns = [CONFIG, TOKENIZER, WEIGHTS, INDEX, "model-*.safetensors", "*.json", "vocab*", "merges.txt"]
    offline = constants.HF_HUB_OFFLINE
    try:
        return Path(snapshot_download(model, allow_patterns=patterns, local_files_only=True))
    except Exception as error:
        if offline:
            raise ValueError(_missing(model, "and HF_HUB_OFFLINE is set")) from error
    try:
        return Path(snapshot_download(model, allow_patterns=patterns))
    except Exception as error:  # of several libraries: no network, no such model, no permission
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(_missing(model, f"and can't be downloaded: {reason}")) from error


def find_cached_model(model: str) -> Path | None:
    """Return the folder of a model of the hub in the local cache; nothing is downloaded.

    Args:
        model: the id of the model.

    Returns:
        The folder; None if the model is not in the cache.
    """
    if not HUB_ID.fullmatch(model):
        return None
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(model, local_files_only=True))
    except Exception:  # of several types: the library is missing, or the model is not in the cache
        return None


def _missing(model: str, reason: str) -> str:
    return (
        f"no folder {quote_path(model)}, and the model {model!r} of the hub is not in the cache, {reason}. Download it "
        f"where there is a network: hf download {model} --local-dir FOLDER, and give the folder: model: FOLDER"
    )


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file of a model.

    Args:
        path: the file.

    Returns:
        Its content.

    Raises:
        ValueError: if the file can't be read, is too large, or is not a JSON object.
    """
    limit = MOST_BYTES.get(path.name, 2**22)
    try:
        with path.open("rb") as file:
            content = file.read(limit + 1)
        if len(content) > limit:
            raise ValueError(f"has more than {limit:,} bytes")
        plain = json.loads(content)
        if not isinstance(plain, dict):
            raise ValueError("is not a JSON object")
    except OSError as error:
        raise ValueError(f"{quote_path(path)} can't be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        reason = f"is not valid JSON: {error}" if isinstance(error, json.JSONDecodeError) else str(error)
        raise ValueError(f"{quote_path(path)} {reason}") from error
    return plain


def read_config(folder: Path) -> dict[str, Any]:
    """Read the configuration of a model.

    Args:
        folder: the folder of the model.

    Returns:
        The content of its `config.json`.

    Raises:
        ValueError: if the file is missing or damaged.
    """
    if not (folder / CONFIG).is_file():
        names = sorted(path.name for path in folder.iterdir())[:5]
        listing = f"it has {', '.join(names)}" if names else "it is empty"
        raise ValueError(f"{quote_path(folder)} is not the folder of a model: no file {CONFIG}; {listing}")
    return read_json(folder / CONFIG)


def find_weights(folder: Path) -> tuple[Path, ...]:
    """Return the weight files of a model.

    Args:
        folder: the folder of the model.

    Returns:
        Its safetensors files.

    Raises:
        ValueError: if there are none, or an index names others than files of the folder.
    """
    if (folder / WEIGHTS).is_file():
        return (folder / WEIGHTS,)
    if (folder / INDEX).is_file():
        files = read_json(folder / INDEX).get("weight_map")
        names = sorted({str(name) for name in files.values()}) if isinstance(files, Mapping) else []
        if not names or any(not re.fullmatch(r"[\w.-]+\.safetensors", name) for name in names):
            raise ValueError(f"{quote_path(folder / INDEX)} names no safetensors files of its folder")
        if missing := [name for name in names if not (folder / name).is_file()]:
            raise ValueError(f"{quote_path(folder)} lacks {missing[0]}, which {INDEX} names")
        return tuple(folder / name for name in names)
    others = sorted(path.name for path in folder.iterdir() if path.suffix in (".bin", ".pt", ".pth", ".h5", ".msgpack"))
    hint = ""
    if others:
        hint = (
            f". {others[0]} is not read, since a pickle can run code; convert it to safetensors where you trust it"
            if others[0].endswith((".bin", ".pt", ".pth"))
            else f". {others[0]} has another format"
        )
    raise ValueError(f"{quote_path(folder)} has no weights: no file {WEIGHTS}{hint}")


def read_tokenizer(path: Path) -> str:
    """Read the file of a tokenizer.

    Args:
        path: a `tokenizer.json`, or the folder of a model with one.

    Returns:
        Its content, which `tokenizers.Tokenizer.from_str` accepts.

    Raises:
        ValueError: if the file is missing, or is not the file of a tokenizer.
    """
    file = path / TOKENIZER if path.is_dir() else path
    if not file.is_file():
        raise ValueError(f"no file {quote_path(file)}, the tokenizer of the model")
    if file.stat().st_size > MOST_BYTES[TOKENIZER]:
        raise ValueError(f"{quote_path(file)} has more than {MOST_BYTES[TOKENIZER]:,} bytes")
    try:
        text = file.read_text(encoding="utf-8")
        check_tokenizer(text)
    except OSError as error:
        raise ValueError(f"{quote_path(file)} can't be read: {error.strerror or error}") from error
    except ValueError as error:
        raise ValueError(f"{quote_path(file)} is not the file of a tokenizer: {error}") from error
    return text


def check_tokenizer(text: str) -> int:
    """Check the JSON of a tokenizer.

    Args:
        text: the JSON.

    Returns:
        The number of its tokens.

    Raises:
        ValueError: if it is not a tokenizer.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise ValueError("needs the package tokenizers: pip install 'mtlcli[text]'") from error
    try:
        return Tokenizer.from_str(text).get_vocab_size()
    except Exception as error:  # the library raises Exception itself
        raise ValueError(str(error).partition("\n")[0]) from error


def find_pool(folder: Path) -> Pool | None:
    """Return the pooling that a model of `sentence-transformers` states.

    Args:
        folder: the folder of the model.

    Returns:
        The pooling; `mean`, the library's default, if `modules.json` names a pooling without settings; None if the
        model states none, or one that is not supported.
    """
    modules = folder / "modules.json"
    if not modules.is_file():
        return None
    try:
        listed = json.loads(modules.read_bytes()[: MOST_BYTES[CONFIG]])
        named = [str(module["path"]) for module in listed if str(module["type"]).endswith("Pooling")]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    if not named or not re.fullmatch(r"[\w.-]+", named[0]):
        return None
    settings = folder / named[0] / CONFIG
    if not os.path.lexists(settings):
        return "mean"
    plain = read_json(settings)
    chosen = [pool for key, pool in POOLING_KEYS.items() if plain.get(key) is True]
    stated = plain.get("pooling_mode")
    if isinstance(stated, str) and not chosen:
        chosen = [pool for pool in POOLING_KEYS.values() if stated in (pool, f"{pool}token")]
    return chosen[0] if len(chosen) == 1 else None
