"""Generation of texts by a language model."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from mtlcli.errors import suggest
from mtlcli.registry import kinds
from mtlcli.specs import TargetSpec, is_labelled
from mtlcli.tasks.answers import token_losses
from mtlcli.tasks.base import Direction, TaskKind
from mtlcli.tasks.decoding import Decoded
from mtlcli.tasks.generation_metrics import TEXT_METRICS, GenerationMetrics
from mtlcli.tasks.sample_weights import weighted_mean
from mtlcli.text import join_names


@kinds.register("generation")
class Generation(TaskKind):
    """Generation of an answer to a prompt: cross-entropy of the answer's tokens. Metrics: perplexity, exact_match.

    For a trunk with a language model: a decoder (GPT-2, Llama, …), which reads the prompt followed by the answer, or an
    encoder and a decoder (T5, …), of which the encoder reads the prompt. All generation tasks share the language
    model's output layer. A task of this kind needs a dataset entry of its own, since its prompt is the input.

    Answers are those of a target of type `text`, or the names of the classes of another target. The loss is that of the
    tokens of the answer and of the token that ends it; the tokens of the prompt have none. `perplexity` is the
    exponential of the mean loss of a token. The other metrics compare the texts that the model generates, by greedy
    decoding (the most probable token at each step), with the answers, both as decoded from tokens and without
    surrounding white space: `exact_match` (the primary metric) is the share of those that are equal; `rouge_l` is the
    mean F-measure of the longest common subsequence of words, in lower case and without punctuation; `chrf` is the
    F2-score of character n-grams up to 6 over all texts. They are those of torchmetrics. A task whose `metrics` have
    only `perplexity` generates nothing in evaluations.

    References:
        Lin, ROUGE: a package for automatic evaluation of summaries, 2004.
        Popović, chrF: character n-gram F-score for automatic MT evaluation, WMT 2015.

    Args:
        target: the target, of type `text`, `classes` or `binary`.
        prompt: the prompt, with columns of the dataset in braces: "Summarize: {text}". `{{` and `}}` are braces.
        answers: texts for classes, as in `{0: no, 1: yes}`; the answer for other classes is their name.
        average: `token`, for the mean loss over all answer tokens of a batch; or `example`, for the mean over the
            examples of each one's mean over its tokens, in which long answers count no more than short ones.
        max_new_tokens: longest answer in tokens, with the token that ends it. Longer ones are cut in training, and
            generation stops there.
        generate: number of examples of a split, from its start, for which texts are generated in evaluations; null for
            all.

    Raises:
        ValueError: `answers` names a class that the target doesn't have, or two classes have the same answer.
    """

    accepts = ("text", "classes", "binary")
    directions: ClassVar[dict[str, Direction]] = {
        "loss": "min", "perplexity": "min", "exact_match": "max", "rouge_l": "max", "chrf": "max",
    }  # fmt: skip
    bounded: ClassVar[frozenset[str]] = frozenset(TEXT_METRICS)
    primary = "exact_match"
    predicts = "sequence"
    generates = True
    outputs = 0  # no head: the language model's output layer is that of the trunk
    tokenizer: Any = None
    _names: Mapping[str, str] = MappingProxyType({})  # decoded answer for a class → the answer

    def __init__(
        self,
        target: TargetSpec,
        *,
        prompt: str,
        answers: dict[str, str] = {},  # noqa: B006  (never modified)
        average: Literal["token", "example"] = "token",
        max_new_tokens: Annotated[int, Field(ge=1, le=2**16)] = 32,
        generate: PositiveInt | None = None,
    ) -> None:
        super().__init__(target)
        self.prompt, self.average, self.max_new_tokens, self.generate = prompt, average, max_new_tokens, generate
        self.weighs_labels = average == "example"
        self.answers = self._class_answers(answers)

    def _class_answers(self, answers: dict[str, str]) -> tuple[str, ...]:
        """Return the answer for each class; nothing for a target of texts."""
        names = () if self.target.type == "text" else self.target.class_names
        for name in answers:
            if not names:
                raise ValueError("answers: the target has no classes; its texts are the answers")
            if name not in names:
                raise ValueError(
                    f"answers: the target has no class {name!r}.{suggest(name, names)} Its classes: {join_names(names)}"
                )
        texts = tuple(answers.get(name, name) for name in names)
        if repeated := [text for text in texts if texts.count(text) > 1]:
            raise ValueError(f"answers: {repeated[0]!r} is the answer for several classes")
        return texts

    def loss(self, prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Compute the mean loss Σwℓ / Σw over the tokens of all answers, with weights of examples; see `TaskKind.loss`.

        Args:
            prediction: logits of the answer's tokens, [B, A, vocabulary], the first token first. A is at least the
                number of tokens of the longest answer.
            target: tokens of the answers, int64 [B, L], one after the other; IGNORE_INDEX elsewhere.
            weight: weights of the examples, [B], for `average: example` multiplied by `label_weights`.

        Returns:
            The mean loss, float32, 0-d.
        """
        losses, amounts = token_losses(prediction, target, clean=self.target.missing)
        means, amounts = losses.sum(1) / amounts.clamp(min=1), amounts.to(losses.dtype)
        if weight is None and self.weighs_labels:
            weight = self.label_weights(target)
        weight = amounts if weight is None else amounts * weight
        return weighted_mean(means, weight > 0, weight)

    def label_weights(self, target: Tensor) -> Tensor:
        """Return the weight of each answer's tokens in the loss of `average: example`: 1 / their number.

        Args:
            target: tokens of the answers, int64 [N, L].

        Returns:
            float32 [N], 0 without tokens.
        """
        amounts = is_labelled(target).sum(1)
        return torch.where(amounts > 0, 1.0 / amounts.clamp(min=1), 0.0)

    def metrics(self, device: torch.device) -> GenerationMetrics:
        """Create all metrics of the kind."""
        return GenerationMetrics(self, [name for name in self.directions if name != "loss"], device)

    def create_metrics(self, device: torch.device) -> GenerationMetrics:
        """Create the metrics that the task reports."""
        return GenerationMetrics(self, [name for name in self.reported if name != "loss"], device)

    @property
    def compares_texts(self) -> bool:
        """True if the task reports a metric for which texts have to be generated."""
        return not TEXT_METRICS.keys().isdisjoint(self.reported)

    def use_tokenizer(self, tokenizer: Any) -> None:
        """Set the tokenizer with which texts are decoded.

        Args:
            tokenizer: the `tokenizers.Tokenizer` of the language model.
        """
        self.tokenizer = tokenizer
        decoded = [self._decode([tokenizer.encode(text, add_special_tokens=False).ids])[0] for text in self.answers]
        self._names = dict(zip(decoded, self.answers, strict=True))

    def texts(self, tokens: Tensor) -> list[str]:
        """Decode the tokens of texts.

        Args:
            tokens: tokens, int64 [B, L]; negative where there are none.

        Returns:
            The texts, without special tokens and without surrounding white space. What the tokenizer makes of the
            answer for a class (such as lower case) is that answer.
        """
        texts = self._decode([[token for token in row if token >= 0] for row in tokens.tolist()])
        return [self._names.get(text, text) for text in texts]

    def _decode(self, rows: list[list[int]]) -> list[str]:
        return [text.strip() for text in self.tokenizer.decode_batch(rows, skip_special_tokens=True)]

    def decode(self, outputs: Tensor) -> Decoded:
        """Decode generated tokens, [B, L], to texts."""
        return Decoded(self.texts(outputs.long()))
