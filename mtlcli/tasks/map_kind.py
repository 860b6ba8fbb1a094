"""Base class of the kinds of tasks that predict maps only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch

from mtlcli.tasks.base import TaskKind
from mtlcli.tasks.collected_metrics import CollectedMetric
from mtlcli.tasks.summed_metrics import SummedMetrics


class MapKind(TaskKind):
    """Base class of the kinds that predict a map, [B, outputs, H, W], whose metrics are functions of sums over images.

    Attributes:
        table: name → metric, of all metrics of the kind; see `SummedMetrics`.
    """

    predicts = "map"
    table: ClassVar[Mapping[str, CollectedMetric]]

    def create_metrics(self, device: torch.device) -> SummedMetrics:
        """Create the metrics that the task reports; see `TaskKind.create_metrics`."""
        return self.collect([name for name in self.reported if name != "loss"])

    def metrics(self, device: torch.device) -> SummedMetrics:
        """Create the metrics of `directions`; see `TaskKind.metrics`."""
        return self.collect([name for name in self.directions if name != "loss"])

    def collect(self, names: Sequence[str]) -> SummedMetrics:
        """Create metrics of the table.

        Args:
            names: the names of the metrics.

        Returns:
            New metrics.
        """
        return SummedMetrics(self.table, names, self.columns, self.class_names)
