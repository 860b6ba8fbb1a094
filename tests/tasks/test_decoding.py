"""Decoding of raw outputs: labels, probabilities and numbers in the terms of the task."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mtlcli.specs import TargetSpec
from mtlcli.tasks import Decoded, TaskKind
from mtlcli.tasks.kinds.regression import Regression
from tests.tasks.labels import kind, predictions


def test_classes_are_decoded_by_the_largest_logit() -> None:
    task = kind("classification", TargetSpec("classes", 3, ("a", "b", "c")))
    logits = predictions(20, 3)
    decoded = task.decode(logits)
    exponentials = np.exp(logits.double().numpy())
    assert isinstance(decoded.probabilities, Tensor) and isinstance(decoded.indices, Tensor)
    np.testing.assert_allclose(decoded.probabilities, exponentials / exponentials.sum(1, keepdims=True), rtol=1e-6)
    assert decoded.indices.tolist() == exponentials.argmax(1).tolist()
    assert decoded.labels == ["abc"[index] for index in decoded.indices.tolist()]
    assert decoded.classes == ("a", "b", "c") and decoded.columns is None


def test_the_positive_class_is_predicted_for_logits_above_0() -> None:
    logits = torch.tensor([[-3.0], [0.0], [2.0], [40.0]])
    for positive, labels in (("yes", ["no", "no", "yes", "yes"]), ("no", ["yes", "yes", "no", "no"])):
        decoded = kind("binary", TargetSpec("classes", 2, ("no", "yes")), positive=positive).decode(logits)
        assert decoded.labels == labels and decoded.classes == ("no", "yes")
        column = decoded.classes.index(positive)
        assert isinstance(decoded.probabilities, Tensor)
        expected = 1 / (1 + np.exp(-logits.squeeze(1).double().numpy()))
        np.testing.assert_allclose(decoded.probabilities[:, column], expected, rtol=1e-6)
        # the small probability keeps its digits: it is not 1 − p
        np.testing.assert_allclose(decoded.probabilities[3, 1 - column], np.exp(-40), rtol=1e-5)


def test_several_labels_are_decoded_separately() -> None:
    decoded = kind("multilabel", TargetSpec("multilabel", 3, ("x", "y", "z"))).decode(torch.tensor([[1.0, -1.0, 2.0]]))
    assert decoded.labels == [["x", "z"]]
    assert isinstance(decoded.indices, Tensor) and decoded.indices.tolist() == [[1, 0, 1]]


def test_numbers_are_decoded_in_float64() -> None:
    decoded = kind("regression", TargetSpec("real")).decode(torch.tensor([[1.5], [2.5]]))
    assert isinstance(decoded.labels, Tensor) and decoded.labels.dtype == torch.float64
    assert decoded.labels.tolist() == [1.5, 2.5]
    assert (decoded.indices, decoded.probabilities, decoded.classes) == (None, None, None)


def test_a_kind_can_decode_its_outputs_itself() -> None:
    class Logarithmic(Regression):
        """Regression of a logarithm."""

        def decode(self, outputs: Tensor) -> Decoded:
            return Decoded(outputs.exp().squeeze(1))

    task: TaskKind = Logarithmic(TargetSpec("real"))
    labels = task.decode(torch.zeros(2, 1)).labels
    assert isinstance(labels, Tensor) and labels.tolist() == [1.0, 1.0]
