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
from mtlcli.data.formats.text_inputs import ask_for_prompt, ask_for_texts
from mtlcli.data.formats.text_rows import TextRows
from mtlcli.data.formats.tokenization import TextTokenizer
from mtlcli.data.formats.tokenizer_training import train_word_pieces
from mtlcli.errors import ConfigError
from mtlcli.files import cache_folder
from mtlcli.models.pretrained.base import Base
from mtlcli.models.pretrained.configs import make_config
from mtlcli.specs import DatasetSpec
from mtlcli.tasks.base import TaskKind
from mtlcli.training.assembly.prompt_data import (
    encode_prompts,
    encode_questions,
    find_prompt,
    generates,
    prompt_words,
)

log = logging.getLogger("mtl")
REPEATED = 100  # occurrences of the words of a prompt among the texts
MOST_STREAMED = 100_000  # texts of a stream that a tokenizer is trained on


def ask_for_inputs(
    experiment: Experiment, alias: str, dataset: Dataset, stored: Mapping[str, DatasetSpec] | None = None
) -> None:
    """Ask a dataset for the texts that the trunk reads.

    Args:
        experiment: The experiment, whose trunk is built from a base.
        alias: Alias of the dataset.
        dataset: The dataset.
        stored: See `text_length`.

    Raises:
        ConfigError: If the trunk reads text and the dataset has none.
    """
    length = text_length(experiment, stored)
    texts = None if length is None else find_prompt(experiment, alias, length)
    if texts is None:
        ask_for_texts(dataset, length, compares_texts(experiment, alias))
    else:
        ask_for_prompt(dataset, texts)


def text_length(experiment: Experiment, stored: Mapping[str, DatasetSpec] | None = None) -> int | None:
    """Return the maximum number of tokens of an example, if the trunk reads text; else None.

    Args:
        experiment: The experiment, whose trunk is built from a base.
        stored: alias → description in a checkpoint, which determines whether its trunk reads text: the files of the
            model are not needed, and those that a checkpoint names are not read. None: the trunk's options do.

    Returns:
        `max_length` of the trunk, or None.

    Raises:
        ConfigError: If the options of the trunk are invalid, or a dataset has a stem.
    """
    if stored is not None:
        reads_text = any(spec.text is not None for spec in stored.values())
    else:
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
        tokenizer = TextTokenizer(base.tokenizer, make_config(base.config).to_dict())
    if any(generates(task.kind.name) for task in experiment.tasks.values()):
        tokenizer.encode_prompts = partial(encode_questions, base)
    return tokenizer


def encode_texts(
    examples: Examples,
    alias: str,
    spec: DatasetSpec,
    tokenizer: TextTokenizer,
    base: Base | None,
    sources: Mapping[str, tuple[str, str]],
    kinds: Mapping[str, TaskKind],
) -> Examples:
    """Replace the texts of examples by tokens, see `tokenize` and `encode_prompts`.

    Args:
        examples: Examples of a split.
        alias: Alias of the dataset.
        spec: Description of the dataset, whose inputs are texts.
        tokenizer: The tokenizer.
        base: The model that the trunk is built from.
        sources: task → (alias of its dataset, name of its target).
        kinds: task → its kind.

    Returns:
        The examples.
    """
    assert spec.text is not None
    if spec.text.prompt is not None and base is not None:
        return encode_prompts(examples, alias, spec, sources, kinds, base)
    return tokenize(examples, tokenizer, spec)


def compares_texts(experiment: Experiment, alias: str) -> bool:
    """Return whether a task on a dataset compares two texts that are encoded one by one."""
    names = [task.kind.name for task in experiment.tasks.values() if task.dataset == alias]
    return any(getattr(registry.kinds[name].target, "pairs", False) for name in names)


def tokenize(examples: Examples, tokenizer: TextTokenizer, spec: DatasetSpec) -> Examples:
    """Replace the texts of examples by tokens, and the tags of words by those of tokens.

    Splits that share their texts share the tokens.

    Args:
        examples: Examples of a split, whose inputs are `TextRows`; others are returned as they are.
        tokenizer: The tokenizer.
        spec: Description of the dataset.

    Returns:
        The examples.

    Raises:
        ConfigError: If the tokenizer doesn't fit the model or `max_length`.
    """
    texts = spec.text
    assert texts is not None
    if isinstance(examples, StreamedExamples):
        return examples.tokenized(partial(tokenizer.tokenize, spec=texts))
    if not isinstance(examples.inputs, TextRows):
        return examples
    tokens = tokenizer.encode(examples.inputs, texts, cache_folder("tokens"))
    targets = dict(examples.targets)
    if texts.words:
        tags = [name for name, target in spec.targets.items() if target.type == "tags"]
        targets |= {name: tokenizer.align(targets[name], tokens) for name in tags}
    return replace(examples, inputs=tokens, targets=targets)


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
                if spec.text.prompt is not None:
                    texts += prompt_words(spec) * REPEATED
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
