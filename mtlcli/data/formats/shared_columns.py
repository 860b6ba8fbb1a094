"""Common columns of tables that share a trunk, with one vocabulary and one set of statistics."""

from __future__ import annotations

from collections.abc import Mapping

from mtlcli.data.base import Dataset
from mtlcli.data.formats.column_encoding import list_sources
from mtlcli.data.formats.table_encoding import fit_columns
from mtlcli.errors import ConfigError, Problem
from mtlcli.specs import MOST_CLASSES, Column, DatasetSpec
from mtlcli.text import join_names


def share_columns(opened: Mapping[str, tuple[Dataset, DatasetSpec]]) -> dict[str, DatasetSpec]:
    """Give all tables the same columns, in the order of the first table's.

    Columns are matched by name, and fitted on the training rows of all tables.

    Args:
        opened: alias → dataset and its specification.

    Returns:
        alias → specification; those of datasets without columns are unchanged.

    Raises:
        ConfigError: a table lacks a column of another, a dataset's encoding is fixed, or a column can't be fitted on
            all tables.
    """
    specs = {alias: spec for alias, (_, spec) in opened.items()}
    tables = [alias for alias, spec in specs.items() if spec.columns]
    if len({specs[alias].columns for alias in tables}) < 2:
        return specs
    first = tables[0]
    names = list_sources(specs[first].columns)
    for alias in tables[1:]:
        others = list_sources(specs[alias].columns)
        unmatched = {first: [n for n in names if n not in others], alias: [n for n in others if n not in names]}
        if any(unmatched.values()):
            differences = "; ".join(
                f"only {table} has {join_names(extra)}" for table, extra in unmatched.items() if extra
            )
            raise ConfigError(
                f"the tables {first} and {alias} share a trunk and need the same columns: {differences}. List the "
                f"columns that both have under `features`, or the others under `exclude`"
            )
    sources = {alias: opened[alias][0].column_source() for alias in tables}
    if fixed := [alias for alias, source in sources.items() if source is None]:
        raise ConfigError(
            f"the tables {', '.join(tables)} share a trunk, but the encoding of {fixed[0]}'s columns is fixed and "
            f"can't be shared with another table"
        )
    columns: list[Column] = []
    problems: list[Problem] = []
    for name in names:
        # No limit on the categories here: it was applied to each table separately.
        try:
            columns += fit_columns([source for source in sources.values() if source is not None], name, MOST_CLASSES)
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
    return specs | {alias: opened[alias][0].use_columns(tuple(columns)) for alias in tables}
