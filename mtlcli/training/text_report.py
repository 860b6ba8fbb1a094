"""Report on the texts of a run: numbers of tokens, and of truncated examples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from mtlcli.data.base import Examples
from mtlcli.data.formats.token_rows import TokenRows
from mtlcli.training.run import Run

TextReport = dict[str, dict[str, dict[str, Any]]]
"""Alias → split → facts, see `describe_tokens`."""


def describe_texts(run: Run) -> TextReport:
    """Describe the texts of all splits that every dataset has.

    Args:
        run: The run, whose trunk reads text.

    Returns:
        Alias → split → facts; datasets whose texts aren't in memory are left out.
    """
    report: TextReport = {}
    for split in run.splits():
        for alias, examples in run.examples(split).items():
            if (facts := describe_tokens(examples)) is not None:
                report.setdefault(alias, {})[split] = facts
    return report


def describe_tokens(examples: Examples) -> dict[str, Any] | None:
    """Describe the tokens of a split.

    Args:
        examples: Examples of the split.

    Returns:
        `examples`, `truncated` (numbers of examples) and `shortest`, `mean` and `longest` (numbers of tokens of an
        example, after truncation); None if the inputs are no tokens in memory.
    """
    if not isinstance(examples.inputs, TokenRows):
        return None
    rows = slice(None) if examples.rows is None else examples.rows.numpy()
    lengths = examples.inputs.lengths[rows]
    return {
        "examples": len(lengths),
        "truncated": int(np.count_nonzero(examples.inputs.truncated[rows])),
        "shortest": int(lengths.min()),
        "mean": round(float(lengths.mean()), 1),
        "longest": int(lengths.max()),
    }


def text_lines(report: TextReport) -> Iterator[str]:
    """Yield a line on the texts of each dataset.

    Args:
        report: What `describe_texts` returned.

    Yields:
        The line.
    """
    for alias, splits in report.items():
        yield f"{alias} {summarize_tokens(splits)}"


def summarize_tokens(splits: Mapping[str, Mapping[str, Any]]) -> str:
    """Describe the texts of a dataset in words, those of all splits together.

    Args:
        splits: Split → facts.

    Returns:
        The numbers of tokens and of truncated examples.
    """
    total = sum(facts["examples"] for facts in splits.values())
    mean = sum(facts["examples"] * facts["mean"] for facts in splits.values()) / total
    truncated = sum(facts["truncated"] for facts in splits.values())
    shortest, longest = min(f["shortest"] for f in splits.values()), max(f["longest"] for f in splits.values())
    cut = f"{truncated:,} of {total:,} truncated ({truncated / total:.1%})" if truncated else "none truncated"
    return f"{shortest} to {longest} tokens, {mean:.1f} on average, {cut}"
