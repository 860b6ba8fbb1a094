"""The experiment schema, YAML loading with line numbers, overrides."""

from mtlcli.config.component_configs import ComponentConfig, SchedulerConfig, TrunkConfig, WeightingConfig
from mtlcli.config.crosschecks import MEAN
from mtlcli.config.load import experiment_from_dict, load_experiment
from mtlcli.config.scalars import dump_yaml
from mtlcli.config.schema import Evaluation, Experiment, Monitor, Task, Training

__all__ = [
    "MEAN",
    "ComponentConfig",
    "Evaluation",
    "Experiment",
    "Monitor",
    "SchedulerConfig",
    "Task",
    "Training",
    "TrunkConfig",
    "WeightingConfig",
    "dump_yaml",
    "experiment_from_dict",
    "load_experiment",
]
