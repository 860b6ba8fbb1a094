"""The experiment schema, YAML loading with line numbers, overrides."""

from mtlcli.config.dump import dump_yaml
from mtlcli.config.entries import ComponentEntry, SchedulerEntry, TrunkEntry
from mtlcli.config.load import experiment_from_dict, load_experiment
from mtlcli.config.schema import Evaluation, Experiment, Monitor, Task, Training

__all__ = [
    "ComponentEntry",
    "Evaluation",
    "Experiment",
    "Monitor",
    "SchedulerEntry",
    "Task",
    "Training",
    "TrunkEntry",
    "dump_yaml",
    "experiment_from_dict",
    "load_experiment",
]
