"""The model that the options of a trunk name, read from its folder or from the experiment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from mtlcli.errors import OptionError
from mtlcli.files import user_path
from mtlcli.models.pretrained.base import Base
from mtlcli.models.pretrained.configs import make_config, reads_text
from mtlcli.models.pretrained.folders import find_model_folder, find_pool, find_weights, read_config, read_tokenizer

if TYPE_CHECKING:
    from transformers import PretrainedConfig

Result = TypeVar("Result")


def read_settings(options: Mapping[str, Any]) -> PretrainedConfig:
    """Return the configuration that the options of a trunk name.

    Args:
        options: `model`, a folder or an id, or `config`, a configuration in the experiment.

    Returns:
        The configuration.

    Raises:
        ValueError: if the library transformers is missing, or not one of the two options is set.
        OptionError: if the configuration can't be read.
    """
    try:
        import transformers  # noqa: F401
    except ImportError as error:
        raise ValueError("needs the package transformers: pip install 'mtlcli[text]'") from error
    model, config = options.get("model"), options.get("config")
    if (model is None) == (config is None):
        raise ValueError(
            "expected one of the options `model`, the folder of a model, and `config`, the configuration of a model "
            "with random weights"
        )
    if config is not None:
        return attribute_to("config", lambda plain: make_config(plain, strict=True), config)
    return attribute_to("model", lambda name: make_config(read_config(find_model_folder(name))), model)


def load_base(options: Mapping[str, Any]) -> Base:
    """Read the model that the options of a trunk name.

    Args:
        options: `model` or `config`, see `read_settings`; `tokenizer`, the path of another tokenizer than the model's.

    Returns:
        The model.

    Raises:
        ValueError: as `read_settings`.
        OptionError: if a file of the model is missing or can't be read.
    """
    settings, tokenizer = read_settings(options), options.get("tokenizer")
    text = None if tokenizer is None else attribute_to("tokenizer", _read_named_tokenizer, tokenizer)
    if options.get("model") is None:
        return Base(dict(options["config"]), text)
    folder = find_model_folder(options["model"])
    if text is None and reads_text(settings):
        text = attribute_to("model", read_tokenizer, folder)
    weights = attribute_to("model", find_weights, folder)
    return Base(read_config(folder), text, weights, str(options["model"]), attribute_to("model", find_pool, folder))


def attribute_to(option: str, function: Callable[..., Result], *arguments: Any) -> Result:
    """Call a function, and attribute its ValueError to an option of the trunk.

    Args:
        option: the option.
        function: the function.
        *arguments: its arguments.

    Returns:
        Its result.

    Raises:
        OptionError: if it raises ValueError.
    """
    try:
        return function(*arguments)
    except OptionError:
        raise
    except ValueError as error:
        raise OptionError({option: str(error)}) from error


def _read_named_tokenizer(path: str) -> str:
    """Read the tokenizer of a file, or of the folder of a model."""
    file = user_path(path)
    return read_tokenizer(file if file.is_file() else find_model_folder(path))
