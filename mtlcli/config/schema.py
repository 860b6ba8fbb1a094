"""Schema of experiments.

`config.load` creates an `Experiment` from YAML or from a plain dict. `Experiment.resolved()` returns it as plain data
with every default filled in; an experiment created from that data is equal to it.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, PrivateAttr
from pydantic.json_schema import GenerateJsonSchema

from mtlcli import registry
from mtlcli.config.component_configs import RegularizerConfig
from mtlcli.config.components import (
    AdapterField,
    CallbackField,
    DatasetField,
    HeadField,
    KindField,
    OptimizerField,
    RegularizerField,
    SamplingField,
    SchedulerField,
    SharingField,
    StemField,
    TrunkField,
    WeightingField,
)
from mtlcli.config.locations import Source
from mtlcli.config.options import Section
from mtlcli.config.task_options import AfterField, ClassWeights, Stop, Where
from mtlcli.config.type_names import TypeDescription
from mtlcli.errors import Problem

MAX_NAME = 100  # characters: names become parts of file names
MAX_NAMED = 500  # tasks, and datasets
BUCKETING = 50  # default of `training.bucketing`
Name = Annotated[
    str,
    Field(pattern=rf"^[A-Za-z_][A-Za-z0-9_-]{{0,{MAX_NAME - 1}}}$"),
    TypeDescription(
        f"a name of at most {MAX_NAME} letters, digits, '_' and '-' that starts with a letter or '_'", "names"
    ),
]
RunName = Annotated[
    str,
    Field(pattern=rf"^[A-Za-z0-9_][A-Za-z0-9_.-]{{0,{MAX_NAME - 1}}}$"),
    TypeDescription(
        f"a name of at most {MAX_NAME} letters, digits, '_', '-' and '.' that starts with a letter, a digit or '_'",
        "names",
    ),
]


class Task(Section):
    """A task: one target of a dataset, with a loss, metrics and a head."""

    location: ClassVar[str] = "tasks.TASK."

    dataset: str
    """Alias of the dataset with the task's examples."""
    target: str | None = None
    """Target of the dataset. Default: the target with the task's name, else the dataset's main or only target."""
    kind: KindField
    """Kind of the task, which determines its loss and metrics."""
    head: HeadField = Field("linear", validate_default=True)
    """Network from the trunk's features to the task's outputs."""
    after: AfterField | None = None
    """Task on the same dataset whose prediction the head receives with the features: its name, or a mapping of `task`
    and `detach`. Default: none."""
    weight: NonNegativeFloat = 1.0
    """Weight of the task's loss, for the weightings that use it."""
    metrics: Annotated[list[str], Field(min_length=1, max_length=1000)] | None = None
    """Metrics to report, such as `[accuracy, balanced_accuracy, precision_per_class]`; `mtl show KIND` lists them.
    Default: those of the kind."""
    primary: str | None = None
    """Metric that represents the task in means, comparisons and Δm. Default: that of its kind, if it is reported, else
    the first of `metrics`."""
    class_weights: Literal["balanced"] | ClassWeights | None = None
    """Weights of the classes in the loss, by name (1 for a class that is not named), or `balanced` for weights that are
    inversely proportional to the classes' frequencies."""
    where: Where | None = None
    """Sample space of the task: the examples in which another label has given values. Labels outside are missing."""
    stop: Stop | None = None
    """Early stopping of this task alone. Default: it is trained as long as the run."""
    description: str = ""
    """Description of the task in words, compared with the others' by `mtl relate --measure semantic`."""


class Training(Section):
    """Options of training."""

    location: ClassVar[str] = "training."

    epochs: PositiveInt = 10
    """Passes over the training data."""
    batch_size: PositiveInt = 64
    """Examples of each dataset per batch."""
    sampling: SamplingField = Field("proportional", validate_default=True)
    """Strategy for drawing batches from several datasets."""
    accumulate: PositiveInt = 1
    """Batches per optimizer step."""
    bucketing: Annotated[int, Field(ge=0, le=100_000)] = BUCKETING
    """Batches of texts that are made together from their texts sorted by length, so that a batch needs little padding;
    0 for batches in random order. Only for a trunk that reads text."""
    clip_norm: PositiveFloat | None = None
    """Maximum total norm of the gradient. Default: no clipping."""
    normalize_losses: Literal["none", "entropy"] = "none"
    """`entropy` divides the loss of a task with K classes by log K, and that of binary and multi-label tasks by log 2:
    each is 1 for a uniform prediction. Other losses stay as they are. Losses are reported without the division."""
    early_stopping: PositiveInt | None = None
    """Stop after this many epochs without a better value of the monitored metric. Default: never."""
    device: str = "auto"
    """Device to train on, such as `cpu` or `cuda:0`; `auto` uses a GPU if one is available."""
    threads: Annotated[int, Field(gt=0, le=4096)] | Literal["auto"] = "auto"
    """CPU threads; `auto` uses the cores that affinity, CPU quota and the load of the machine leave."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Floating-point format of the forward pass; bf16 and fp16 use autocast."""
    compile: bool = False
    """Compile the model with torch.compile."""
    deterministic: bool = False
    """Use deterministic algorithms only, which may be slower."""
    loading: Literal["auto", "resident", "stream"] = "auto"
    """`resident` keeps the data on the training device, `stream` reads it through a DataLoader."""
    workers: Annotated[int, Field(ge=0, le=1024)] | Literal["auto"] = "auto"
    """Worker processes of the DataLoader."""


class Checkpoint(Section):
    """Schedule of checkpoints."""

    location: ClassVar[str] = "checkpoint."

    every: Annotated[
        str,
        Field(pattern=r"^(epoch|[1-9][0-9]{0,8} (steps?|minutes?))$"),
        TypeDescription("`epoch`, or a number of steps or minutes such as `500 steps` or `10 minutes`", "schedules"),
    ] = "epoch"
    """Interval between checkpoints within an epoch, such as `500 steps` (counted from the start of the epoch) or
    `10 minutes`. One is always saved at the end of an epoch."""
    keep: Annotated[int, Field(ge=1, le=1000)] = 2
    """Number of latest checkpoints to keep."""
    base: Literal["include", "reference"] = "include"
    """`reference` leaves frozen weights of a pretrained trunk out of the checkpoints, which then refer to the files of
    the pretrained model by path and SHA-256."""


class Monitor(Section):
    """Metric that selects the best epoch."""

    location: ClassVar[str] = "evaluation.monitor."

    task: str = "mean"
    """A task, or `mean` for the mean over all tasks."""
    metric: str = "primary"
    """A metric of the task, or `primary` for the primary metric of its kind."""


class Evaluation(Section):
    """Evaluation after each epoch."""

    location: ClassVar[str] = "evaluation."

    split: Literal["train", "val", "test"] = "val"
    """Split to evaluate."""
    batch_size: PositiveInt | None = None
    """Examples per batch. Default: 256, or `training.batch_size` if a task has a label for each pixel."""
    monitor: Monitor = Monitor()
    """Metric that selects the best epoch."""
    last: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Report the metrics as means over this many last epochs, too, on the evaluated split and on `test`, which is then
    evaluated after each of them. Default: report those of the best epoch alone."""


class Experiment(Section):
    """A multi-task experiment."""

    name: RunName
    """Name of the experiment and of its run folder. Default: the name of the file."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of all random numbers of the run."""
    datasets: Annotated[dict[Name, DatasetField], Field(max_length=MAX_NAMED)]
    """Alias → dataset."""
    tasks: Annotated[dict[Name, Task], Field(max_length=MAX_NAMED)]
    """Name → task."""
    trunk: TrunkField
    """Network that the tasks share."""
    stems: Annotated[dict[Name, StemField], Field(max_length=MAX_NAMED)] = Field({})
    """Alias → stem, the encoder of a dataset in front of the trunk, for datasets whose inputs differ in shape."""
    adapters: AdapterField | None = None
    """Small trainable modules in the trunk, whose own weights are frozen. Default: none."""
    sharing: SharingField = Field("hard", validate_default=True)
    """Parameter sharing: the arrangement of trunks and heads."""
    weighting: WeightingField = Field("fixed", validate_default=True)
    """Method that combines the tasks' losses or gradients into one update."""
    regularizers: Annotated[list[RegularizerField], Field(max_length=50)] = Field([])
    """Terms added to the objective."""
    optimizer: OptimizerField = Field("Adam", validate_default=True)
    """Optimizer."""
    scheduler: SchedulerField | None = None
    """Learning-rate schedule. Default: a constant rate."""
    training: Training = Field({}, validate_default=True)
    """Options of training."""
    checkpoint: Checkpoint = Checkpoint()
    """Schedule of checkpoints."""
    evaluation: Evaluation = Evaluation()
    """Evaluation after each epoch."""
    # callbacks and plugins don't change the numbers of a run, so they aren't part of the resolved experiment
    callbacks: Annotated[list[CallbackField], Field(max_length=50)] = Field([], exclude=True)
    """Callbacks from plugins, called during training."""
    plugins: Annotated[list[str], Field(max_length=20)] = Field([], exclude=True)
    """Modules, or files ending in .py, with your own components; imported only with --allow-plugins."""

    _source: Source = PrivateAttr(default_factory=Source)

    def resolved(self, callbacks: bool = False) -> dict[str, Any]:
        """Return the experiment as plain data (dicts, lists, numbers, strings), with every default filled in.

        Args:
            callbacks: include the callbacks, which checkpoints don't contain.

        Returns:
            The plain data.
        """
        named = [entry.plain() for entry in self.callbacks] if callbacks else []
        plain = self.model_dump()
        for key in ("stems", "adapters"):
            if not plain[key]:
                del plain[key]
        if plain["training"]["normalize_losses"] == "none":
            del plain["training"]["normalize_losses"]
        if plain["checkpoint"]["base"] == "include":
            del plain["checkpoint"]["base"]
        if plain["evaluation"]["last"] is None:
            del plain["evaluation"]["last"]
        if plain["training"]["bucketing"] == BUCKETING:
            del plain["training"]["bucketing"]
        return plain | ({"callbacks": named} if named else {})

    @property
    def terms(self) -> list[RegularizerConfig]:
        """The regularizers, and the one that the sharing adds (see `AITM.implied_regularizer`)."""
        implied = getattr(registry.sharings[self.sharing.name].target, "implied_regularizer", None)
        if implied is None or (term := implied(self.sharing.options)) is None:
            return self.regularizers
        name, strength, options = term
        if any(entry.name == name for entry in self.regularizers):
            return self.regularizers
        return [*self.regularizers, RegularizerConfig(name, options, strength=strength)]

    def problem(self, path: str, message: str) -> Problem:
        """Describe a problem with a value of the experiment.

        Args:
            path: dotted key path of the value.
            message: the problem, what was expected and what was given.

        Returns:
            The problem, with the location of the value in the YAML file, or that of its nearest parent.
        """
        keys = [int(key) if key.isdecimal() else key for key in path.split(".")] if path else []
        return self._source.problem(tuple(keys), message)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Experiment) and self.resolved() == other.resolved()

    __hash__ = None  # type: ignore[assignment]


EXPRESSION = {"type": "string", "pattern": r"^\$\{[A-Za-z_][A-Za-z0-9_]*(:[^}]*)?\}$"}
ABOUT = ("title", "description", "default")  # keys of a JSON Schema that don't restrict the value


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of experiment files, with all components that are registered now."""
    schema = Experiment.model_json_schema(mode="validation")
    schema["required"].remove("name")  # the default is the name of the file
    schema = _strict(schema)
    return {"$schema": GenerateJsonSchema.schema_dialect, "title": "mtl experiment", **schema}


def _strict(schema: Any) -> Any:
    """Forbid unknown keys in mappings, and accept `${ENV}` for numbers and choices."""
    if isinstance(schema, list):
        return [_strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {
        # the values of these are data and names, not schemas
        key: value if key in ("default", "const", "enum", "required") else _strict(value)
        for key, value in schema.items()
    }
    if "patternProperties" in strict and "additionalProperties" not in strict:
        strict["additionalProperties"] = False
    if strict.get("type") in ("integer", "number", "boolean") or isinstance(strict.get("enum"), list):
        about = {key: strict.pop(key) for key in ABOUT if key in strict}
        return {**about, "anyOf": [strict, EXPRESSION]}
    return strict
