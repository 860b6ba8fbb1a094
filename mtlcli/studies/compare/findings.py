"""Sentences at the start of a comparison: significant differences, and warnings."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from mtlcli.studies.compare.differences import SIGNIFICANCE, Difference, PairedComparison
from mtlcli.studies.compare.execution import Outcome
from mtlcli.studies.compare.formatting import format_change, format_p
from mtlcli.studies.compare.plan import BASELINE
from mtlcli.studies.compare.results import Results
from mtlcli.studies.compare.statistics import MIN_VALUES

MAX_NAMES = 8  # in one sentence


def list_findings(results: Results) -> list[str]:
    """List the significant differences, in one paragraph for each reference.

    Args:
        results: the results of the comparison.

    Returns:
        For each reference, the methods that differ from it significantly, in which tasks, and the number of tests
        without a significant difference.
    """
    findings = []
    for reference, comparisons in results.comparisons.items():
        name = "the single-task baselines" if reference == BASELINE else reference
        tests = [
            (label, task, difference)
            for label, comparison in comparisons.items()
            for task, difference in comparison.tasks.items()
        ]
        tested = [test for test in tests if test[2].estimate.n >= MIN_VALUES]
        if not tested:
            findings.append(f"Compared with {name}: no tests, since fewer than {MIN_VALUES} seeds have a value on both "
                            "sides.")  # fmt: skip
            continue
        significant = [test for test in tested if test[2].significant]
        better = [test for test in significant if test[2].improvement > 0 and test[2].exceeds_example_error]
        worse = [test for test in significant if test[2].improvement < 0 and test[2].exceeds_example_error]
        within = [test for test in significant if not test[2].exceeds_example_error]
        clauses = [
            *([f"significantly better: {_list_tests(better)}"] if better else []),
            *([f"significantly worse: {_list_tests(worse)}"] if worse else []),
            *([f"significant over the seeds, but within the uncertainty of the test examples: {_list_tests(within)}"]
              if within else []),
        ]  # fmt: skip
        rest = len(tested) - len(significant)
        last = f"no significant difference in the other {rest} of {len(tested)} tests" if clauses else (
            f"no significant difference in any of {len(tested)} tests")  # fmt: skip
        findings.append(f"Compared with {name} (p < {SIGNIFICANCE:.2g} after Holm's correction): "
                        f"{'; '.join([*clauses, *([last] if rest else [])])}.")  # fmt: skip
        if len(tested) < len(tests):
            untested = [f"{label} in {task}" for label, task, test in tests if test.estimate.n < MIN_VALUES]
            findings[-1] += f" Not tested, with fewer than {MIN_VALUES} common seeds: {_abbreviate(untested)}."
        if differing := [label for label, comparison in comparisons.items() if comparison.test.holm < SIGNIFICANCE]:
            names = ", ".join(_describe_delta_m(label, comparisons) for label in differing)
            findings[-1] += f" Δm differs significantly for {names}."
    return findings


def list_warnings(results: Results) -> list[str]:
    """List limitations of the comparison, one sentence each.

    Args:
        results: the results of the comparison.

    Returns:
        The warnings.
    """
    return [
        *_unpaired_seeds(results),
        *_undertrained_runs(results),
        *_mixed_versions(results),
        *_different_examples(results),
        *_negligible_errors(results),
    ]


def _list_tests(tests: Sequence[tuple[str, str, Difference]]) -> str:
    return _abbreviate(
        [
            f"{label} in {task} ({format_change(difference.estimate.mean, difference.change.unit)}, "
            f"p {format_p(difference.test.holm, '= ')})"
            for label, task, difference in tests
        ]
    )


def _abbreviate(names: Sequence[str]) -> str:
    """Join the first names, and count the others."""
    more = len(names) - MAX_NAMES
    return ", ".join([*names[:MAX_NAMES], *([f"and {more} more"] if more > 0 else [])])


def _describe_delta_m(label: str, comparisons: Mapping[str, PairedComparison]) -> str:
    test = comparisons[label].test
    direction = "better" if test.difference.mean < 0 else "worse"
    return f"{label} ({direction}, p {format_p(test.holm, '= ')})"


def _unpaired_seeds(results: Results) -> Iterator[str]:
    seeds = results.plan.seeds
    for reference, comparisons in results.comparisons.items():
        incomplete: dict[str, list[str]] = {}
        for label, comparison in comparisons.items():
            for task, difference in comparison.tasks.items():
                if len(difference.change.by_seed) < len(seeds):
                    used = ", ".join(map(str, difference.change.by_seed))
                    incomplete.setdefault(used, []).append(f"{label} in {task}")
        for used, names in incomplete.items():
            if used:
                yield (
                    f"Compared with {reference}, only the seeds {used} of {', '.join(map(str, seeds))} have a value on "
                    f"both sides for {_abbreviate(names)}. The differences are over these seeds; the others are "
                    "excluded from both sides."
                )
            else:
                yield f"Compared with {reference}, no seed has a value on both sides for {_abbreviate(names)}."


def _undertrained_runs(results: Results) -> Iterator[str]:
    counts = []
    for method, outcomes in results.outcomes.items():
        completed = [run for run in outcomes if run.completed]
        last = sum(run.best_epoch == run.epochs > 0 for run in completed)
        if completed and last > len(completed) / 2:
            counts.append(f"{method} ({last} of {len(completed)})")
    if counts:
        yield (
            f"The best epoch is the last one in most runs of {_abbreviate(counts)}. They are probably undertrained; a "
            "larger training.epochs may change the comparison."
        )


def _mixed_versions(results: Results) -> Iterator[str]:
    runs = Counter(_version(run) for outcomes in results.outcomes.values() for run in outcomes if run.environment)
    if len(runs) > 1:
        counts = ", ".join(f"{version} ({n} runs)" for version, n in runs.most_common())
        yield f"The runs were trained with different versions: {counts}. Use another folder to train all of them again."


def _version(outcome: Outcome) -> str:
    environment = outcome.environment
    return f"mtl {environment['mtl']} with torch {environment['packages']['torch']}"


def _different_examples(results: Results) -> Iterator[str]:
    sizes: dict[str, set[int]] = {}
    for outcomes in results.outcomes.values():
        for run in outcomes:
            for task, n in run.examples.items():
                sizes.setdefault(task, set()).add(n)
    if differing := [f"{task} ({min(n):,} to {max(n):,})" for task, n in sizes.items() if len(n) > 1]:
        yield (
            f"The runs were evaluated on different numbers of examples: {', '.join(differing)}. The data may have "
            "changed between them. Use another folder to train all of them again."
        )


def _negligible_errors(results: Results) -> Iterator[str]:
    names = [
        f"{task} {results.primary[task][1]}"
        for task, difference in next(iter(results.comparisons[BASELINE].values())).tasks.items()
        if difference.change.unit == "percent" and difference.change.denominator > abs(difference.change.reference)
    ]
    if names:
        yield (
            f"The error of the single-task baseline is less than 1 % of the error of predicting the mean for "
            f"{', '.join(names)}. Percentages are relative to this 1 %."
        )


def format_epochs(results: Results) -> str:
    """Format the number of epochs of the runs, such as `20` or, with early stopping, `9 to 20 (median 14)`.

    Args:
        results: the results of the comparison.

    Returns:
        The text; the planned number if no run has completed.
    """
    runs = [run for outcomes in results.outcomes.values() for run in outcomes if run.completed]
    epochs = [run.epochs for run in runs if run.run.method.merge is None]
    if not epochs:
        return str(results.plan.experiment.training.epochs)
    return str(epochs[0]) if len(set(epochs)) == 1 else (
        f"{min(epochs)} to {max(epochs)} (median {statistics.median(epochs):g})")  # fmt: skip
