"""Language models of the trunks of tasks that generate texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from mtlcli.config import Experiment
from mtlcli.config.locations import Problems
from mtlcli.data.formats.tokenization import load_tokenizer
from mtlcli.models.pretrained.base import Base
from mtlcli.models.pretrained.language_model import LanguageModel
from mtlcli.models.sharing.base import Sharing
from mtlcli.models.task_answers import Answers
from mtlcli.models.trunks.base import Trunk
from mtlcli.tasks.base import TaskKind
from mtlcli.training.assembly.prompt_data import end_token


def add_language_model(trunk: Trunk, base: Base | None, task: str) -> None:
    """Add a language model to a trunk.

    Args:
        trunk: The trunk, which is changed.
        base: The pretrained model that it is built from.
        task: A task that generates texts.

    Raises:
        ValueError: If the trunk has no language model.
    """
    if base is None:
        raise ValueError(
            f"task {task!r} generates texts, which needs a language model: the trunk `transformers` with a decoder "
            "(gpt2, llama, …) or an encoder and a decoder (t5, …)"
        )
    trunk.language_model = LanguageModel(trunk.network, base)


def answer_head(name: str) -> nn.Module:
    """Return the head of a task that generates texts, which returns the logits of the language model.

    Args:
        name: Name of the head in the experiment.

    Returns:
        The identity.

    Raises:
        ValueError: If the user chose a head.
    """
    if name != "linear":
        raise ValueError(f"the task generates texts by the language model's own output layer, so {name!r} has no use")
    return nn.Identity()


def connect_language_models(
    experiment: Experiment, sharing: Sharing, kinds: Mapping[str, TaskKind], base: Base | None
) -> None:
    """Connect the tasks that generate texts with the language models of their trunks.

    Args:
        experiment: The experiment.
        sharing: The sharing, which is changed.
        kinds: task → its kind.
        base: The pretrained model that the trunks are built from.

    Raises:
        ConfigError: If the sharing has no trunk for each task, or the tokenizer or the lengths don't fit.
    """
    tasks, end = [task for task, kind in kinds.items() if kind.generates], 0
    with Problems(experiment).now("trunk"):
        trunks = _trunks(sharing, tasks, experiment.sharing.name)
        if base is not None and base.tokenizer is not None:
            tokenizer = load_tokenizer(base.tokenizer)
            end = end_token(tokenizer, base)
            for task in tasks:
                kind: Any = kinds[task]
                kind.use_tokenizer(tokenizer)
    longest = max(experiment.tasks[task].kind.options["max_new_tokens"] for task in tasks)
    for trunk in trunks.values():
        trunk.language_model.longest = longest  # type: ignore[union-attr]
    _check_lengths(experiment, {task: trunks[task].language_model.encoded for task in tasks})  # type: ignore[union-attr]
    route = getattr(sharing, "route", None)
    sharing.answers = Answers(trunks, end, None if route is None else lambda task: setattr(route, "task", task))


def _check_lengths(experiment: Experiment, encoded: Mapping[str, Any]) -> None:
    """Check that answers leave tokens for prompts.

    Args:
        experiment: The experiment.
        encoded: task that generates texts → whether an encoder reads its prompt.

    Raises:
        ConfigError: If they don't.
    """
    problems, length = Problems(experiment), experiment.trunk.options["max_length"]
    for task, separate in encoded.items():
        answer = experiment.tasks[task].kind.options["max_new_tokens"]
        with problems.at(f"tasks.{task}.kind"):
            if not separate and answer >= length:
                raise ValueError(
                    f"max_new_tokens: answers of up to {answer} tokens leave no token of a prompt in `max_length: "
                    f"{length}` of the trunk"
                )
    problems.check()


def _trunks(sharing: Sharing, tasks: list[str], name: str) -> dict[str, Trunk]:
    """Return the trunk of each task. Raises a ValueError if the sharing combines several for a task."""
    trunks = sharing.trunks()
    if len(trunks) == 1:
        return dict.fromkeys(tasks, next(iter(trunks.values())))
    if trunks.keys() != sharing.inputs.keys():
        raise ValueError(
            f"task {tasks[0]!r} generates texts, which needs one trunk, and `sharing: {name}` combines several; use "
            "`sharing: hard`, with or without `adapters`, or `none`"
        )
    return {task: trunks[task] for task in tasks}
