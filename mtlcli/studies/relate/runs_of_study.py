"""What the measures of a study are made from: each part is made when it is first asked for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch

from mtlcli.config import Experiment
from mtlcli.studies.current_data import CurrentData
from mtlcli.studies.folder import StudyFolder
from mtlcli.studies.observer import StudyObserver
from mtlcli.studies.relate.baselines import Baseline, trained_baselines
from mtlcli.studies.relate.budget import Budget
from mtlcli.studies.relate.joint_run import Points, joint_points
from mtlcli.training.assemble import Datasets, assemble, open_datasets
from mtlcli.training.run import Run


@dataclass
class StudyRuns:
    """joint: the experiment in canonical form. descriptions: by task."""

    joint: Experiment
    descriptions: dict[str, str]
    folder: StudyFolder
    budget: Budget
    observer: StudyObserver

    @property
    def tasks(self) -> list[str]:
        return list(self.joint.tasks)

    @cached_property
    def opened(self) -> Datasets:
        return open_datasets(self.joint)

    @cached_property
    def plan(self) -> Run:
        """The parts of the joint run, without weights: what tasks and datasets are like."""
        return assemble(self.joint, torch.device("meta"), self.opened)

    @cached_property
    def data(self) -> CurrentData:
        return CurrentData()

    @cached_property
    def baselines(self) -> list[Baseline]:
        return trained_baselines(self.joint, self.folder, self.budget, self.observer, self.data)

    @cached_property
    def points(self) -> Points:
        return joint_points(self.joint, self.folder, self.observer, self.data)
