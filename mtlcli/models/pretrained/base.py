"""Base of a trunk, read before it is built: configuration, tokenizer and weights of a pretrained model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtlcli.errors import ConfigError
from mtlcli.specs import Pool


@dataclass(frozen=True)
class Base:
    """A model that a trunk is built from, as `Trunk.load_base` reads it.

    A checkpoint stores all but the weights, which are those of the trained trunk, so that it can be used without the
    files of the model.

    Attributes:
        config: configuration of the model, plain JSON.
        tokenizer: JSON of its `tokenizers.Tokenizer`; None if the model has none.
        weights: safetensors files; empty for random initial weights.
        source: the folder or the hub id that it comes from; empty for a configuration in the experiment.
        pool: the model's own pooling, if its files state one.
    """

    config: dict[str, Any]
    tokenizer: str | None = None
    weights: tuple[Path, ...] = ()
    source: str = ""
    pool: Pool | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the base without its weights as plain data, for a checkpoint."""
        return {
            "config": json.dumps(self.config),
            "tokenizer": self.tokenizer,
            "source": self.source,
            "pool": self.pool,
        }

    @classmethod
    def from_dict(cls, plain: Any) -> Base:
        """Restore a base from the result of `to_dict`.

        Args:
            plain: the plain data.

        Returns:
            The base, without weights.

        Raises:
            ConfigError: if the data has another form.
        """
        try:
            if not isinstance(plain, Mapping):
                raise TypeError
            config, tokenizer, source, pool = (plain[key] for key in ("config", "tokenizer", "source", "pool"))
            config = json.loads(config)
            texts = all(isinstance(text, str | None) for text in (tokenizer, pool)) and isinstance(source, str)
            if not isinstance(config, dict) or not texts or pool not in (None, "mean", "cls", "max", "last"):
                raise TypeError
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise ConfigError("the checkpoint's `base` has another form than that of a pretrained model") from error
        return cls(config, tokenizer, (), source, pool)
