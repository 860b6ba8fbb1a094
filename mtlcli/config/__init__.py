"""The experiment schema, YAML loading with line numbers, overrides."""

from mtlcli.config.crosschecks import MEAN
from mtlcli.config.dump import dump_yaml
from mtlcli.config.entries import ComponentEntry, SchedulerEntry, TrunkEntry, WeightingEntry
from mtlcli.config.load import experiment_from_dict, load_experiment
from mtlcli.config.schema import Evaluation, Experiment, Monitor, Task, Training

__all__ = [
    "MEAN",
    "ComponentEntry",
    "Evaluation",
    "Experiment",
    "Monitor",
    "SchedulerEntry",
    "Task",
    "Training",
    "TrunkEntry",
    "WeightingEntry",
    "dump_yaml",
    "experiment_from_dict",
    "load_experiment",
]
