"""The experiment: everything one run is made from, validated.

Made by `config.load`, from YAML or from a plain dict; `resolved()` gives it back as plain data with every default
filled in, and an experiment made from that is the same.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, PositiveInt, PrivateAttr
from pydantic.json_schema import GenerateJsonSchema

from mtlcli.config.components import (
    CallbackField,
    DatasetField,
    HeadField,
    KindField,
    OptimizerField,
    RegularizerField,
    SamplingField,
    SchedulerField,
    SharingField,
    TrunkField,
    WeightingField,
)
from mtlcli.config.locations import Source
from mtlcli.config.type_names import Words
from mtlcli.errors import Problem

MAX_NAME = 100  # characters: names become parts of file names
MAX_NAMED = 500  # tasks, and datasets
Name = Annotated[
    str,
    Field(pattern=rf"^[A-Za-z_][A-Za-z0-9_-]{{0,{MAX_NAME - 1}}}$"),
    Words(f"a name of at most {MAX_NAME} letters, digits, '_' and '-' that starts with a letter or '_'", "names"),
]
RunName = Annotated[
    str,
    Field(pattern=rf"^[A-Za-z0-9_][A-Za-z0-9_.-]{{0,{MAX_NAME - 1}}}$"),
    Words(
        f"a name of at most {MAX_NAME} letters, digits, '_', '-' and '.' that starts with a letter, a digit or '_'",
        "names",
    ),
]


class Section(BaseModel):
    """Base of the sections: strict types, unknown keys are errors, no NaN and no infinity."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)
    location: ClassVar[str] = ""  # key path of the section, with a dot at its end

    def __setattr__(self, name: str, value: Any) -> None:
        """Raise AttributeError, except for private attributes.

        Raises:
            AttributeError: always; the message has the override that makes the change.
        """
        if not name.startswith("_"):
            text = str(value) if isinstance(value, str | int | float) else "VALUE"
            raise AttributeError(
                f"an experiment can't be changed; pass the override '{self.location}{name}={text}' to "
                "load_experiment, build or train instead"
            )
        super().__setattr__(name, value)


class Task(Section):
    """A named target on a dataset.

    dataset: alias of the dataset that holds its examples. target: the one in it (null: the target
    called like the task, else the dataset's main or only one).
    weight: the task's λ, for the weightings that use it.
    """

    location: ClassVar[str] = "tasks.TASK."

    dataset: str
    target: str | None = None
    kind: KindField
    head: HeadField = Field("linear", validate_default=True)
    weight: NonNegativeFloat = 1.0
    description: str = ""


class Training(Section):
    """How the run trains.

    batch_size: examples per dataset and step. accumulate: batches per optimizer step.
    clip_norm: largest total norm of the gradient. early_stopping: epochs without a better monitored value.
    threads: of a CPU; `auto` is what affinity, CPU quota and the load of the machine leave.
    loading: `resident` keeps the data on the training device, `stream` reads it through a DataLoader.
    """

    location: ClassVar[str] = "training."

    epochs: PositiveInt = 10
    batch_size: PositiveInt = 64
    sampling: SamplingField = Field("proportional", validate_default=True)
    accumulate: PositiveInt = 1
    clip_norm: PositiveFloat | None = None
    early_stopping: PositiveInt | None = None
    device: str = "auto"
    threads: Annotated[int, Field(gt=0, le=4096)] | Literal["auto"] = "auto"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    compile: bool = False
    deterministic: bool = False
    loading: Literal["auto", "resident", "stream"] = "auto"
    workers: Annotated[int, Field(ge=0, le=1024)] | Literal["auto"] = "auto"


class Checkpoint(Section):
    """When the run is saved, besides at the end of every epoch, and how many of the latest checkpoints are kept."""

    location: ClassVar[str] = "checkpoint."

    every: Annotated[
        str,
        Field(pattern=r"^(epoch|[1-9][0-9]{0,8} (steps?|minutes?))$"),
        Words("`epoch`, or a number of steps or minutes such as `500 steps` or `10 minutes`", "rhythms"),
    ] = "epoch"
    keep: Annotated[int, Field(ge=1, le=1000)] = 2


class Monitor(Section):
    """The figure that picks the best epoch: a task's metric, or its mean over the tasks."""

    location: ClassVar[str] = "evaluation.monitor."

    task: str = "mean"
    metric: str = "primary"


class Evaluation(Section):
    """What is measured after each epoch."""

    location: ClassVar[str] = "evaluation."

    split: Literal["train", "val", "test"] = "val"
    batch_size: PositiveInt = 256
    monitor: Monitor = Monitor()


class Experiment(Section):
    """One experiment: an `mtl` configuration file.

    plugins: modules, or files ending in .py, with components of your own; imported only with --allow-plugins.
    seed: of everything random in the run. sharing: how heads and trunk are wired.
    weighting: how the task losses become one update. regularizers: terms added to the objective.
    callbacks: called while the run trains, to watch it; of plugins only.
    """

    name: RunName
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    datasets: Annotated[dict[Name, DatasetField], Field(max_length=MAX_NAMED)]
    tasks: Annotated[dict[Name, Task], Field(max_length=MAX_NAMED)]
    trunk: TrunkField
    sharing: SharingField = Field("hard", validate_default=True)
    weighting: WeightingField = Field("fixed", validate_default=True)
    regularizers: Annotated[list[RegularizerField], Field(max_length=50)] = []
    optimizer: OptimizerField = Field("Adam", validate_default=True)
    scheduler: SchedulerField | None = None
    training: Training = Field({}, validate_default=True)
    checkpoint: Checkpoint = Checkpoint()
    evaluation: Evaluation = Evaluation()
    callbacks: Annotated[list[CallbackField], Field(max_length=50)] = Field([], exclude=True)  # they change no number
    plugins: Annotated[list[str], Field(max_length=20)] = Field(
        [], exclude=True
    )  # how to read a file, not what it says

    _source: Source = PrivateAttr(default_factory=Source)

    def resolved(self, callbacks: bool = False) -> dict[str, Any]:
        """Return the experiment as plain data (dicts, lists, numbers, strings), every default filled in.

        Args:
            callbacks: whether to include them. They change no number of a run, so a checkpoint doesn't have them.
        """
        named = [entry.plain() for entry in self.callbacks] if callbacks else []
        return self.model_dump() | ({"callbacks": named} if named else {})

    def problem(self, path: str, message: str) -> Problem:
        """A problem with the value at a dotted key path, with its place in the YAML file (or its nearest parent's)."""
        keys = [int(key) if key.isdecimal() else key for key in path.split(".")] if path else []
        return self._source.problem(tuple(keys), message)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Experiment) and self.resolved() == other.resolved()

    __hash__ = None  # type: ignore[assignment]


EXPRESSION = {"type": "string", "pattern": r"^\$\{[A-Za-z_][A-Za-z0-9_]*(:[^}]*)?\}$"}
ABOUT = ("title", "description", "default")  # what a schema says about a value without restricting it


def json_schema() -> dict[str, Any]:
    """The schema, knowing the components that are registered at this moment."""
    schema = Experiment.model_json_schema(mode="validation")
    schema["required"].remove("name")  # the file's own name stands in
    schema = _strict(schema)
    return {"$schema": GenerateJsonSchema.schema_dialect, "title": "mtl experiment", **schema}


def _strict(schema: Any) -> Any:
    """Closes mappings to other keys, and lets `${ENV}` stand where a number or a choice is wanted."""
    if isinstance(schema, list):
        return [_strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {
        # What these hold are data and names, not schemas.
        key: value if key in ("default", "const", "enum", "required") else _strict(value)
        for key, value in schema.items()
    }
    if "patternProperties" in strict and "additionalProperties" not in strict:
        strict["additionalProperties"] = False
    if strict.get("type") in ("integer", "number", "boolean") or isinstance(strict.get("enum"), list):
        about = {key: strict.pop(key) for key in ABOUT if key in strict}
        return {**about, "anyOf": [strict, EXPRESSION]}
    return strict
