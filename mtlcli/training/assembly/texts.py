"""Texts as inputs: the trunks that read them, their tokenizer, and the replacement of texts by tokens."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any

from mtlcli import registry
from mtlcli.config import Experiment
from mtlcli.config.locations import Problems
from mtlcli.data.base import Dataset, Examples
from mtlcli.data.examples import StreamedExamples
from mtlcli.data.formats.text_rows import TextRows
from mtlcli.data.formats.tokenization import TextTokenizer
from mtlcli.data.formats.tokenizer_training import train_word_pieces
from mtlcli.errors import ConfigError
from mtlcli.files import cache_folder
from mtlcli.models.pretrained.base import Base
from mtlcli.models.pretrained.configs import make_config
from mtlcli.specs import DatasetSpec
from mtlcli.text_spec import TextSpec

log = logging.getLogger("mtl")
MOST_STREAMED = 100_000  # texts of a stream that a tokenizer is trained on


def text_length(experiment: Experiment) -> int | None:
    """Return the maximum number of tokens of an example, if the trunk reads text; else None.

    Args:
        experiment: The experiment, whose trunk is built from a base.

    Returns:
        `max_length` of the trunk, or None.

    Raises:
        ConfigError: If the options of the trunk are invalid, or a dataset has a stem.
    """
    with Problems(experiment).now("trunk"):
        reads_text = registry.trunks[experiment.trunk.name].target.reads_text(experiment.trunk.options)
    if not reads_text:
        return None
    if experiment.stems:
        message = f"the trunk {experiment.trunk.name!r} reads text, which no stem returns; leave out `stems`"
        raise ConfigError(experiment.problem("stems", message))
    length: int = experiment.trunk.options["max_length"]
    return length


def make_tokenizer(experiment: Experiment, base: Base) -> TextTokenizer | None:
    """Make the tokenizer of a run.

    Args:
        experiment: The experiment.
        base: The model that the trunk is built from.

    Returns:
        The tokenizer; None if the model has none, or one that is not trained yet.

    Raises:
        ConfigError: If the tokenizer can't be read.
    """
    if base.tokenizer is None:
        return None
    with Problems(experiment).now("trunk.tokenizer" if experiment.trunk.options.get("tokenizer") else "trunk.model"):
        return TextTokenizer(base.tokenizer, make_config(base.config).to_dict())


def tokenize(examples: Examples, tokenizer: TextTokenizer, texts: TextSpec) -> Examples:
    """Replace the texts of examples by tokens. Splits that share their texts share the tokens.

    Args:
        examples: Examples of a split, whose inputs are `TextRows`; others are returned as they are.
        tokenizer: The tokenizer.
        texts: Description of the texts.

    Returns:
        The examples.

    Raises:
        ConfigError: If the tokenizer doesn't fit the model or `max_length`.
    """
    if isinstance(examples, StreamedExamples):
        return examples.tokenized(partial(tokenizer.tokenize, spec=texts))
    if not isinstance(examples.inputs, TextRows):
        return examples
    return replace(examples, inputs=tokenizer.encode(examples.inputs, texts, cache_folder("tokens")))


def train_tokenizer(experiment: Experiment, opened: Mapping[str, tuple[Dataset, DatasetSpec]], base: Base) -> Base:
    """Train a tokenizer for a model without one, of the size of its vocabulary, on the training texts of all datasets.

    Args:
        experiment: The experiment.
        opened: The datasets.
        base: The model.

    Returns:
        The model with the tokenizer.

    Raises:
        ConfigError: If no tokenizer can be trained on the texts.
    """
    size: int = make_config(base.config).vocab_size
    texts: list[str] = []
    for alias, (dataset, spec) in opened.items():
        if spec.text is not None:
            with Problems(experiment).now(f"datasets.{alias}"):
                texts += _training_texts(dataset.examples("train", experiment.seed))
    log.info("training a tokenizer of up to %d pieces on %d texts", size, len(texts))
    with Problems(experiment).now("trunk"):
        return replace(base, tokenizer=train_word_pieces(texts, size))


def _training_texts(examples: Examples) -> Iterator[str]:
    inputs: Any = examples.inputs
    if isinstance(examples, StreamedExamples):
        inputs = examples.first_texts(MOST_STREAMED)
    elif examples.rows is not None:
        inputs = inputs.select(examples.rows.numpy())
    for cell in chain.from_iterable(chain.from_iterable(inputs.blocks())):
        if cell is not None:
            yield cell if isinstance(cell, str) else " ".join(cell)
