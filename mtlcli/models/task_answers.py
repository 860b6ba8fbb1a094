"""Answers of language models: the tasks of a sharing whose predictions are texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from mtlcli.models.trunks.base import Trunk


class Answers:
    """The generation tasks of a sharing, and the trunks whose language models they use.

    The output layer of a language model belongs to all of its tasks, so the logits are computed in the shared part of
    the graph: they are the representations of these tasks, which have no head.

    Args:
        trunks: generation task → its trunk, with a language model.
        end: token that ends an answer.
        select: called with a task before its part of a trunk is computed, for parameters that depend on the task.
    """

    def __init__(self, trunks: Mapping[str, Trunk], end: int, select: Callable[[str], None] | None = None) -> None:
        self.trunks, self.end, self._select = dict(trunks), end, select

    def apply(
        self, representations: Mapping[str, Tensor], inputs: Mapping[str, Tensor], alias_of: Mapping[str, str]
    ) -> dict[str, Tensor]:
        """Replace the representations of generation tasks by the logits of their answers.

        Args:
            representations: task → output of its trunk, [B, L, F].
            inputs: alias → inputs of the trunk, [B, 2, L].
            alias_of: task → alias of its dataset.

        Returns:
            Task → logits of the tokens of the answers, [B, A, vocabulary]; other representations as they are.
        """
        return {
            task: self._logits(task, inputs[alias_of[task]], x) if task in self.trunks else x
            for task, x in representations.items()
        }

    def _logits(self, task: str, x: Tensor, hidden: Tensor) -> Tensor:
        trunk = self._prepared(task)
        logits: Tensor = language_model(trunk).logits(x, hidden, trunk.mask(x))
        return logits

    def generate(self, task: str, x: Tensor, encode: Callable[[], Tensor], tokens: int) -> Tensor:
        """Generate answers by greedy decoding.

        Args:
            task: the task.
            x: inputs of the trunk, [B, 2, L].
            encode: returns the output of the trunk for them, [B, L, F]; called if a decoder follows an encoder.
            tokens: maximum number of tokens of an answer.

        Returns:
            Tokens, int64 [B, M]; −1 after the end of an answer.
        """
        model = language_model(self.trunks[task])
        hidden = encode() if model.encoded else None
        trunk = self._prepared(task)
        answers: Tensor = model.generate(x, hidden, trunk.mask(x), tokens, self.end)
        return answers

    def own_modules(self, task: str) -> list[torch.nn.Module]:
        """Return the layers of a language model that only one task uses; none for a task with the trunk of others."""
        trunk = self.trunks.get(task)
        if trunk is None or sum(other is trunk for other in self.trunks.values()) > 1:
            return []
        return [language_model(trunk)]

    def _prepared(self, task: str) -> Trunk:
        if self._select is not None:
            self._select(task)
        return self.trunks[task]


def language_model(trunk: Trunk) -> Any:
    """Return the `LanguageModel` of a trunk that has one."""
    return trunk.language_model
