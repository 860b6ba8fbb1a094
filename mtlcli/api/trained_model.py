"""A trained model, loaded from a checkpoint to be used in Python."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from mtlcli.api.checkpoint_evaluation import base_path, checkpoint_path
from mtlcli.api.predictions import Predictions, decode_predictions
from mtlcli.api.raw_inputs import RawInputs
from mtlcli.api.text_batches import compute_in_order
from mtlcli.config import Experiment
from mtlcli.data.fingerprint import DataRecord
from mtlcli.data.formats.text_rows import TextRows
from mtlcli.data.formats.token_rows import TokenRows
from mtlcli.errors import InputError, suggest
from mtlcli.plugins import load_plugin
from mtlcli.specs import DatasetSpec
from mtlcli.tasks.base import TaskKind
from mtlcli.text import join_names
from mtlcli.training.assembly.build import rebuild
from mtlcli.training.checkpoint.experiment import experiment_from_checkpoint
from mtlcli.training.checkpoint.file import load_checkpoint
from mtlcli.training.data_changes import data_records
from mtlcli.training.evaluate import evaluation_batch_size
from mtlcli.training.raw_input_model import RawInputModel
from mtlcli.training.run import Run, autocast


def load(
    checkpoint: str | os.PathLike[str],
    *,
    device: str | torch.device = "cpu",
    plugins: Sequence[str] = (),
    base: str | os.PathLike[str] | None = None,
) -> Model:
    """Load a trained model from a checkpoint.

    The data it was trained on is not needed. No code in the file is run.

    Args:
        checkpoint: A `.pt` file of a run, or the run's folder, of which the best checkpoint is taken.
        device: Device of the model: `cpu`, `cuda`, `cuda:0`, `mps`, or `auto` for a GPU if one is available.
        plugins: Modules, or files ending in `.py`, with components that the model needs; imported first.
        base: Folder or file of the pretrained model that the checkpoint refers to (`checkpoint.base: reference`); by
            default it is looked for.

    Returns:
        The model, in evaluation mode.

    Raises:
        ConfigError: The file is missing, damaged or no checkpoint of mtl, or the device is not available.
    """
    for plugin in [plugins] if isinstance(plugins, str) else plugins:
        load_plugin(plugin, "plugin")
    path = checkpoint_path(checkpoint)
    payload = load_checkpoint(path)
    experiment = experiment_from_checkpoint(payload, [f"training.device={device}"], path, data=False)
    run = rebuild(experiment, payload, data=False, prepare=False, base_path=base_path(base))
    return Model(run, data_records(payload))


class Model(nn.Module):
    """A trained multi-task model: raw inputs in, the outputs or predictions of every task out.

    An ordinary `nn.Module`, made by `load`. Inputs are given by the alias of their dataset, or alone if the model
    has one dataset. They are raw, as the dataset stores them: the model normalizes them itself. Images are uint8
    [B, C, H, W], or [B, H, W] for one channel; rows of a table are a dict of columns, a list of dicts or a pandas
    DataFrame, or a tensor that is already encoded [B, columns]. NumPy arrays count as tensors. Texts are a list of
    strings or of pairs of strings, or rows with the columns of the texts.

    Args:
        run: The run of a checkpoint.
        records: Alias → record of the data that the model was trained on.

    Attributes:
        experiment: The configuration that the model was trained with.
        specs: Alias → shape, targets and columns of the dataset.
        kinds: Task → its kind.
        sources: Task → (alias of its dataset, name of its target).
        stored_datasets: Alias → the dataset as the checkpoint describes it; its data is not read.
    """

    experiment: Experiment
    specs: dict[str, DatasetSpec]
    kinds: dict[str, TaskKind]
    sources: dict[str, tuple[str, str]]

    def __init__(self, run: Run, records: Mapping[str, DataRecord] | None = None) -> None:
        super().__init__()
        self.network = RawInputModel(run.model, run.specs)
        self.experiment, self.specs, self.kinds, self.sources = run.experiment, run.specs, run.kinds, run.sources
        self.stored_datasets = dict(run.datasets)
        self._inputs = RawInputs(
            run.datasets,
            run.specs,
            {
                alias: [*(record.columns or ()), *_named_columns(run, alias)]
                for alias, record in (records or {}).items()
            },
            run.tokenizer,
        )
        self.to(run.device)
        self.eval()

    @property
    def device(self) -> torch.device:
        """Device of the model's parameters."""
        return next(self.parameters()).device

    def forward(self, inputs: Any) -> dict[str, Tensor]:
        """Compute the raw outputs.

        Args:
            inputs: Alias → raw inputs, or the inputs alone for a model of one dataset; float tensors are accepted too.

        Returns:
            Task → outputs [B, outputs] on the model's device, for the tasks on the datasets given: logits, or the
            predicted number in the target's units.

        Raises:
            InputError: A dataset is unknown, or its inputs have the wrong shape, type, columns or values.
        """
        return self.network(self._tensors(inputs))  # type: ignore[no-any-return]

    def features(self, inputs: Any) -> dict[str, Tensor]:
        """Compute the shared representation that each task's head is applied to.

        Args:
            inputs: As in `forward`.

        Returns:
            Task → representation [B, features]; the same tensor for tasks that share it. Of a task with a tag for each
            word [B, L, features], and of pairs of texts that are encoded one by one [B, 2, features]. Tasks that
            generate texts have none.

        Raises:
            InputError: As in `forward`.
        """
        tensors = self._tensors(inputs)
        tasks = [t for t, (alias, _) in self.sources.items() if alias in tensors and not self.kinds[t].generates]
        by_task = self.network.representations(tensors, tasks)
        return {task: self._by_pairs(task, features) for task, features in by_task.items()}

    def _by_pairs(self, task: str, features: Tensor) -> Tensor:
        texts = self.specs[self.sources[task][0]].text
        return features.reshape(-1, 2, features.shape[1]) if texts is not None and texts.separate else features

    def predict(
        self, inputs: Any, *, tasks: Sequence[str] | None = None, batch_size: int | None = None
    ) -> dict[str, Predictions]:
        """Predict the label of every task, without gradients, in evaluation mode and in batches.

        The precision is that of the training, so that the predictions are those that `mtl eval` measures.

        Args:
            inputs: Alias → raw inputs, or the inputs alone for a model of one dataset. Images must have the type
                and the range of values that the dataset stores; a list of paths of image files is read as the dataset
                reads its own.
            tasks: Tasks to predict; by default all on the datasets given.
            batch_size: Examples in a batch; by default `evaluation.batch_size` of the configuration.

        Returns:
            Task → predictions, in the order of the inputs.

        Raises:
            InputError: A dataset or a task is unknown, or the inputs have the wrong shape, type, columns or values.
        """
        size = evaluation_batch_size(self.experiment, self.kinds) if batch_size is None else batch_size
        if not isinstance(size, int) or size < 1:
            raise InputError(f"batch_size: expected an integer > 0, got {batch_size!r}")
        converted = self._inputs.convert(inputs, stored_type=True)
        chosen = self._chosen_tasks(converted, tasks)
        outputs: dict[str, Tensor] = {}
        for alias, given in converted.items():
            if isinstance(given, Tensor):
                batches = [self.compute(alias, batch, chosen) for batch in torch.split(given, size)]
                outputs |= {task: torch.cat([batch[task] for batch in batches]) for task in batches[0]}
            else:
                outputs |= compute_in_order(given, size, partial(self.compute, alias, tasks=chosen))
        return {task: self._decoded(task, outputs[task], converted[self.sources[task][0]]) for task in chosen}

    def tokenize(self, alias: str, rows: TextRows) -> TokenRows:
        """Tokenize the texts of some examples, for a model that reads text.

        Args:
            alias: Alias of the dataset.
            rows: The texts.

        Returns:
            The examples as tokens.
        """
        tokenizer, texts = self._inputs.tokenizer, self.specs[alias].text
        assert tokenizer is not None and texts is not None
        return tokenizer.tokenize(rows, texts)

    @torch.no_grad()
    def compute(self, alias: str, inputs: Tensor, tasks: Sequence[str]) -> dict[str, Tensor]:
        """Compute raw outputs for a batch in evaluation mode, in the precision of the training.

        Args:
            alias: Alias of the dataset.
            inputs: Raw inputs [B, *input_shape].
            tasks: Tasks to compute; those on other datasets are left out.

        Returns:
            Task → outputs [B, outputs], on the CPU; of a task that generates texts their tokens.
        """
        was_training = self.training
        if was_training:
            self.eval()
        try:
            with autocast(self.experiment, self.device):
                outputs = self._outputs(alias, inputs.to(self.device), self._on_dataset(alias, tasks))
        finally:
            if was_training:
                self.train()
        return {task: output.cpu() for task, output in outputs.items()}

    def _outputs(self, alias: str, inputs: Tensor, tasks: Sequence[str]) -> dict[str, Tensor]:
        """Return task → outputs; of a task that generates texts their tokens, [B, max_new_tokens], −1 after the end."""
        if not any(self.kinds[task].generates for task in tasks):
            return self.network({alias: inputs}, tasks)  # type: ignore[no-any-return]
        results = {}
        for task in tasks:
            kind: Any = self.kinds[task]
            tokens = self.network.model.generate(task, inputs, kind.max_new_tokens)
            results[task] = functional.pad(tokens, (0, kind.max_new_tokens - tokens.shape[1]), value=-1)
        return results

    def _on_dataset(self, alias: str, tasks: Sequence[str]) -> list[str]:
        return [task for task in tasks if self.sources[task][0] == alias]

    def _chosen_tasks(self, aliases: Collection[str], tasks: Sequence[str] | None) -> list[str]:
        """Return the tasks to predict, in the order of the configuration."""
        offered = [task for task in self.kinds if self.sources[task][0] in aliases]
        if tasks is None:
            return offered
        for task in [tasks] if isinstance(tasks, str) else tasks:
            if task not in offered:
                hint = suggest(str(task), offered)
                raise InputError(
                    f"tasks: no task {task!r} on the datasets given.{hint} Choose from: {join_names(offered)}"
                )
        return [task for task in offered if task in tasks]

    def _decoded(self, task: str, outputs: Tensor, inputs: Tensor | TokenRows) -> Predictions:
        tokens = None if isinstance(inputs, Tensor) else inputs
        return decode_predictions(task, self.experiment.tasks[task].kind.name, self.kinds[task], outputs, tokens)

    def _tensors(self, inputs: Any) -> dict[str, Tensor]:
        return {alias: tensor.to(self.device) for alias, tensor in self._inputs.tensors(inputs).items()}


def _named_columns(run: Run, alias: str) -> Iterator[str]:
    """Names of a table's columns that the options of the dataset mention."""
    options = run.experiment.datasets[alias].options
    for option in ("split_column", "group_column"):
        if isinstance(name := options.get(option), str):
            yield name
    targets = options.get("targets")
    for columns in targets.values() if isinstance(targets, dict) else ():
        if isinstance(columns, list):
            yield from columns
