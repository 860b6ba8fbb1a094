"""Tables that go through one trunk: the same columns by name, with one vocabulary and one set of statistics."""

from __future__ import annotations

from collections.abc import Mapping

from mtlcli.data.base import Dataset
from mtlcli.data.formats.column_encoding import fit_column
from mtlcli.errors import ConfigError, Problem
from mtlcli.specs import MOST_CLASSES, Column, DatasetSpec
from mtlcli.text import listed


def share_columns(opened: Mapping[str, tuple[Dataset, DatasetSpec]]) -> dict[str, DatasetSpec]:
    """The specs of the datasets, of which those with columns all have the same, in the order of the first table's.

    Columns are matched by name and fitted on the training rows of all tables; a table whose columns are in another
    order is read in this one. ConfigError where a table lacks a column of another, or one can't be fitted on both.
    """
    specs = {alias: spec for alias, (_, spec) in opened.items()}
    tables = [alias for alias, spec in specs.items() if spec.columns]
    if len({specs[alias].columns for alias in tables}) < 2:
        return specs
    first = tables[0]
    names = [column.name for column in specs[first].columns]
    for alias in tables[1:]:
        there = [column.name for column in specs[alias].columns]
        alone = {first: [n for n in names if n not in there], alias: [n for n in there if n not in names]}
        if any(alone.values()):
            differences = "; ".join(f"only {table} has {listed(own)}" for table, own in alone.items() if own)
            raise ConfigError(
                f"the tables {first} and {alias} go through the same trunk and need the same columns: "
                f"{differences}. Name the "
                f"columns that both have in `features`, or the others in `exclude`"
            )
    sources = {alias: opened[alias][0].column_source() for alias in tables}
    if fixed := [alias for alias, source in sources.items() if source is None]:
        raise ConfigError(
            f"the tables {', '.join(tables)} go through the same trunk, and the encoding of {fixed[0]}'s columns is "
            f"fixed: it can't be shared with another table"
        )
    columns: list[Column] = []
    problems: list[Problem] = []
    for name in names:
        # each table alone has been held to the limit already
        try:
            columns.append(
                fit_column([source for source in sources.values() if source is not None], name, MOST_CLASSES)
            )
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
    return specs | {alias: opened[alias][0].use_columns(tuple(columns)) for alias in tables}
