"""Names of the metrics of a task: those of its kind, or those that its key `metrics` chooses.

A metric with a value for each class is chosen as `precision_per_class`, for all classes, or as `precision[cat]`, for
the class `cat`. Either way, the value of a class has the name `precision[cat]`. The same holds for labels
(`precision_per_label`) and quantiles (`pinball_per_quantile`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Protocol

from mtlcli.errors import suggest

Direction = Literal["max", "min"]
"""Direction of a metric: larger (`max`) or smaller (`min`) values are better."""


class MetricDeclarations(Protocol):
    """A task kind or its class, as far as it declares metrics (see `mtlcli.tasks.base.TaskKind`)."""

    @property
    def directions(self) -> Mapping[str, Direction]:
        """Direction of each metric that a task reports unless it chooses others."""

    @property
    def collected(self) -> Mapping[str, Any]:
        """Other metrics that a task can choose, with an attribute `direction`."""

    @property
    def bounded(self) -> frozenset[str]:
        """Metrics whose best value is 1."""

    @property
    def primary(self) -> str:
        """Metric that represents the task if the user names none."""


FAMILY = re.compile(r"(.+)_per_[a-z]+")


def metrics_to_choose(kind: MetricDeclarations) -> dict[str, Direction]:
    """Return the metrics that a task of a kind can choose, without those of single classes, and their directions."""
    defaults = {name: direction for name, direction in kind.directions.items() if name != "loss"}
    return defaults | {name: metric.direction for name, metric in kind.collected.items()}


def class_in(metric: str) -> str | None:
    """Return the class in the name of a metric: `cat` of `precision[cat]`; None without one."""
    return metric[metric.index("[") + 1 : -1] if "[" in metric and metric.endswith("]") else None


def family_of(metric: str, names: Iterable[str]) -> str | None:
    """Return the metric of all classes that contains one of a single class.

    Args:
        metric: the name, such as `precision[cat]`.
        names: names of metrics, such as `precision_per_class`.

    Returns:
        The name of the metric of all classes; None if the names contain none, or `metric` has no class.
    """
    base = metric.partition("[")[0] if class_in(metric) is not None else None
    return next((name for name in names if (family := FAMILY.fullmatch(name)) and family[1] == base), None)


def check_names(names: Sequence[str], kind_name: str, kind: MetricDeclarations) -> dict[int, str]:
    """Check the metrics that a task chooses, as far as the classes of its target needn't be known.

    Args:
        names: the chosen metrics.
        kind_name: the name of the task's kind.
        kind: the task's kind, or its class.

    Returns:
        Position in `names` → its problem; empty if all of them are valid.
    """
    known = metrics_to_choose(kind)
    families = [family[1] for name in known if (family := FAMILY.fullmatch(name))]
    problems: dict[int, str] = {}
    for position, name in enumerate(names):
        if name == "loss":
            problems[position] = "the loss is always reported; leave it out of `metrics`"
        elif name in names[:position]:
            problems[position] = f"{name!r} is chosen twice"
        elif class_in(name) is not None and family_of(name, known) is None:
            problems[position] = (
                f"the kind {kind_name!r} has no metric {name.partition('[')[0]!r} with a value for each class; "
                f"those that have one: {', '.join(families) or 'none'}"
            )
        elif class_in(name) is None and name not in known:
            problems[position] = (
                f"the kind {kind_name!r} has no metric {name!r}.{suggest(name, known)} Choose from: {', '.join(known)}"
            )
    return problems


def metric_directions(
    kind: MetricDeclarations, chosen: Sequence[str] | None, classes: Sequence[str] = ()
) -> dict[str, Direction]:
    """Return the metrics of a task and their directions, `loss` first.

    Args:
        kind: the task's kind, or its class.
        chosen: the metrics that the task chooses; None for those of the kind.
        classes: names of the classes, which replace `precision_per_class` by `precision[cat]` and so on.

    Returns:
        Metric → whether larger or smaller values are better.

    Raises:
        ValueError: the target has no class that the name of a metric contains.
    """
    if chosen is None:
        return dict(kind.directions)
    known = metrics_to_choose(kind)
    directions: dict[str, Direction] = {"loss": "min"}
    for name in chosen:
        label = class_in(name)
        if label is not None:
            if label not in classes:
                raise ValueError(
                    f"the target has no class {label!r}.{suggest(label, classes)} Its classes: {', '.join(classes)}"
                )
            directions[name] = known[family_of(name, known) or name]
        elif family := FAMILY.fullmatch(name):
            directions |= {f"{family[1]}[{label}]": known[name] for label in classes}
        else:
            directions[name] = known[name]
    return directions


def metric_direction(metric: str, kind: MetricDeclarations) -> Direction:
    """Return the direction of any metric that a task of a kind can report."""
    known: dict[str, Direction] = {"loss": "min", **metrics_to_choose(kind)}
    return known[family_of(metric, known) or metric]


def is_bounded(metric: str, kind: MetricDeclarations) -> bool:
    """Return whether the best value of a metric is 1."""
    return (metric if class_in(metric) is None else metric.partition("[")[0]) in kind.bounded


def has_metric(metric: str, kind: MetricDeclarations, chosen: Sequence[str] | None) -> bool:
    """Return whether a task reports a metric, as far as that is known without the classes of its target."""
    if chosen is None:
        return metric in kind.directions
    if FAMILY.fullmatch(metric):
        return False
    return metric == "loss" or metric in chosen or family_of(metric, chosen) is not None


def metric_choices(kind: MetricDeclarations, chosen: Sequence[str] | None) -> list[str]:
    """Return the metrics that a task reports, with `precision[CLASS]` for the values of all classes."""
    if chosen is None:
        return list(kind.directions)
    return ["loss", *(f"{family[1]}[CLASS]" if (family := FAMILY.fullmatch(name)) else name for name in chosen)]


def primary_metric(
    kind: MetricDeclarations, options: Mapping[str, object], chosen: Sequence[str] | None, named: str | None
) -> str:
    """Return the primary metric of a task.

    Args:
        kind: the task's kind, or its class.
        options: the options of the kind, of which `primary` replaces the kind's primary metric.
        chosen: the metrics that the task chooses; None for those of the kind.
        named: the primary metric that the task names; None if it names none.

    Returns:
        The named metric; else that of the kind, if the task reports it; else the first chosen one.
    """
    if named is not None:
        return named
    option = options.get("primary")
    primary = option if isinstance(option, str) else kind.primary
    if chosen is None or has_metric(primary, kind, chosen):
        return primary
    return next((name for name in chosen if not FAMILY.fullmatch(name)), "loss")
