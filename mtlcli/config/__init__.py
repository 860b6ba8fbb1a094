"""The experiment schema, YAML loading with line numbers, overrides."""

from mtlcli.config.component_configs import (
    ComponentConfig,
    SamplingConfig,
    SchedulerConfig,
    TrunkConfig,
    WeightingConfig,
)
from mtlcli.config.crosschecks import MEAN
from mtlcli.config.load import experiment_from_dict, load_experiment
from mtlcli.config.scalars import dump_yaml
from mtlcli.config.schema import Evaluation, Experiment, Monitor, Task, Training
from mtlcli.config.task_options import Condition, Where

__all__ = [
    "MEAN",
    "ComponentConfig",
    "Condition",
    "Evaluation",
    "Experiment",
    "Monitor",
    "SamplingConfig",
    "SchedulerConfig",
    "Task",
    "Training",
    "TrunkConfig",
    "WeightingConfig",
    "Where",
    "dump_yaml",
    "experiment_from_dict",
    "load_experiment",
]
