"""Prompts of the tasks that generate texts, and their examples as tokens."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

from mtlcli import registry
from mtlcli.config import Experiment
from mtlcli.config.locations import Problems
from mtlcli.data.base import Examples
from mtlcli.data.examples import StreamedExamples
from mtlcli.data.formats.prompt_tokens import PromptExamples, PromptLimits, tokenize_prompts
from mtlcli.data.formats.prompts import Prompt, PromptTemplate
from mtlcli.data.formats.text_rows import TextRows
from mtlcli.data.formats.token_rows import TokenRows
from mtlcli.data.formats.tokenization import load_tokenizer
from mtlcli.errors import ConfigError
from mtlcli.models.pretrained.base import Base
from mtlcli.models.pretrained.configs import make_config
from mtlcli.specs import IGNORE_INDEX, DatasetSpec, TargetSpec
from mtlcli.tasks.base import TaskKind
from mtlcli.text_spec import TextSpec

LOG = logging.getLogger("mtl")
END_TOKENS = ("</s>", "<|endoftext|>", "<eos>", "<|end_of_text|>", "<|im_end|>", "[SEP]")


def find_prompt(experiment: Experiment, alias: str, length: int) -> TextSpec | None:
    """Return the inputs of a dataset from which a task generates texts.

    Args:
        experiment: The experiment.
        alias: Alias of the dataset.
        length: `max_length` of the trunk.

    Returns:
        Their description; None if no task on the dataset generates texts.

    Raises:
        ConfigError: If the dataset has other tasks, or the prompt contains the target.
    """
    tasks = {name: task for name, task in experiment.tasks.items() if task.dataset == alias}
    generating = [name for name, task in tasks.items() if generates(task.kind.name)]
    if not generating:
        return None
    name, problems = generating[0], Problems(experiment)
    with problems.at(f"tasks.{name}.dataset"):
        if others := [other for other in tasks if other != name]:
            raise ValueError(
                f"the prompt of task {name!r} is the input of its dataset {alias!r}, which can't be that of "
                f"{', '.join(map(repr, others))} too; give each task an entry of its own under `datasets`"
            )
    options = tasks[name].kind.options
    columns = tuple(dict.fromkeys(PromptTemplate.parse(options["prompt"]).columns))
    with problems.at(f"tasks.{name}.kind.prompt"):
        if (target := tasks[name].target or name) in columns:
            raise ValueError(f"contains the target {target!r} itself")
    problems.check()
    return TextSpec(columns, length, prompt=options["prompt"], answer=options["max_new_tokens"])


def generates(kind: str) -> bool:
    """Return whether tasks of a kind generate texts."""
    return bool(getattr(registry.kinds[kind].target, "generates", False))


def prompt_words(spec: DatasetSpec) -> list[str]:
    """Return the words of the prompt of a dataset and of its answers, as far as they are names of classes."""
    assert spec.text is not None and spec.text.prompt is not None
    names = [name for target in spec.targets.values() for name in target.classes or ()]
    return [*PromptTemplate.parse(spec.text.prompt).texts, *names]


def end_token(tokenizer: Any, base: Base) -> int:
    """Return the token that ends an answer.

    Args:
        tokenizer: The `tokenizers.Tokenizer` of the model.
        base: The model.

    Returns:
        `eos_token_id` of the model, unless its configuration is one of the experiment and the tokenizer has another
        token for it.

    Raises:
        ValueError: If there is none.
    """
    stated: Any = base.config.get("eos_token_id")
    stated = stated[0] if isinstance(stated, list) and stated else stated
    valid = isinstance(stated, int) and tokenizer.id_to_token(stated) is not None
    if valid and (base.source or tokenizer.id_to_token(stated) in END_TOKENS):
        return int(stated)
    named = (tokenizer.token_to_id(token) for token in END_TOKENS)
    for token in named:
        if token is not None:
            return int(token)
    if valid:
        return int(stated)
    raise ValueError(
        "the model has no token that ends a text: its configuration has no `eos_token_id`, and its tokenizer none of "
        + ", ".join(END_TOKENS)
    )


_ENCODED: WeakKeyDictionary[TextRows, PromptExamples] = WeakKeyDictionary()  # splits of a dataset share their texts


def encode_prompts(
    examples: Examples,
    alias: str,
    spec: DatasetSpec,
    sources: Mapping[str, tuple[str, str]],
    kinds: Mapping[str, TaskKind],
    base: Base,
) -> Examples:
    """Replace the cells of prompts by tokens, and the labels by the tokens of answers.

    Args:
        examples: Examples of a split, whose inputs are `TextRows`.
        alias: Alias of the dataset.
        spec: Description of the dataset.
        sources: task → (alias of its dataset, name of its target).
        kinds: task → its kind.
        base: The model, with its tokenizer.

    Returns:
        The examples.

    Raises:
        ConfigError: If the data is streamed.
    """
    if isinstance(examples, StreamedExamples):
        raise ConfigError("the kind `generation` reads its examples into memory; leave out `streaming`")
    rows = examples.inputs
    if not isinstance(rows, TextRows):
        return examples
    task, target = next((task, target) for task, (source, target) in sources.items() if source == alias)
    if rows not in _ENCODED:
        assert spec.text is not None and spec.text.prompt is not None and base.tokenizer is not None
        kind: Any = kinds[task]
        tokenizer = load_tokenizer(base.tokenizer)
        limits = limits_of(tokenizer, base, spec.text)
        prompts = render(rows, spec.text)
        answers = _answers(rows, spec, kind, target, examples)
        encoded = tokenize_prompts(tokenizer, prompts, answers, limits)
        if encoded.cut:
            LOG.warning(
                "tasks.%s: %d of %d answers have more than %d tokens and are cut; see `max_new_tokens`",
                task, encoded.cut, len(rows), limits.answer,
            )  # fmt: skip
        _ENCODED[rows] = encoded
    encoded = _ENCODED[rows]
    return replace(examples, inputs=encoded.inputs, targets={**examples.targets, target: encoded.labels})


def encode_questions(base: Base, rows: TextRows, texts: TextSpec) -> TokenRows:
    """Return the tokens of prompts without answers.

    Args:
        base: The model, with its tokenizer.
        rows: Cells of the prompts.
        texts: Their description.

    Returns:
        The tokens.
    """
    assert base.tokenizer is not None
    tokenizer = load_tokenizer(base.tokenizer)
    return tokenize_prompts(tokenizer, render(rows, texts), None, limits_of(tokenizer, base, texts)).inputs


def limits_of(tokenizer: Any, base: Base, texts: TextSpec) -> PromptLimits:
    """Return the numbers of tokens of prompts and answers.

    Args:
        tokenizer: The `tokenizers.Tokenizer` of the model, whose truncation and padding are switched off.
        base: The model.
        texts: Description of the prompts.

    Returns:
        The numbers.
    """
    tokenizer.no_truncation()
    tokenizer.no_padding()
    encoded = bool(getattr(make_config(base.config), "is_encoder_decoder", False))
    return PromptLimits(texts.max_length, texts.answer, end_token(tokenizer, base), encoded)


def render(rows: TextRows, texts: TextSpec) -> list[Prompt]:
    """Return the prompts of examples.

    Args:
        rows: Cells of the columns of the prompt, and then those of answers.
        texts: Their description.

    Returns:
        A prompt for each example.
    """
    assert texts.prompt is not None
    cells = dict(zip(texts.columns, map(list, rows.columns), strict=False))
    return PromptTemplate.parse(texts.prompt).render_rows(cells)


def _answers(rows: TextRows, spec: DatasetSpec, kind: Any, target: str, examples: Examples) -> list[str | None]:
    described: TargetSpec = spec.targets[target]
    labels = examples.targets[target]
    if described.type == "text":
        assert spec.text is not None
        return list(rows.columns[len(spec.text.columns) + spec.text.answers.index(target)])
    if described.type == "binary":
        labels = labels.nan_to_num(nan=IGNORE_INDEX)
    return [None if label == IGNORE_INDEX else kind.answers[int(label)] for label in labels.tolist()]
