"""Sentences that open a comparison: what is significant, and what to be careful with."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from mtlcli.studies.compare.differences import SIGNIFICANT, Against, Difference
from mtlcli.studies.compare.execution import Outcome
from mtlcli.studies.compare.formatting import change, p_value
from mtlcli.studies.compare.plan import BASELINE
from mtlcli.studies.compare.results import Results
from mtlcli.studies.compare.statistics import FEWEST

MOST_NAMES = 8  # in one sentence


def findings(results: Results) -> list[str]:
    """A sentence for each reference: which methods differ from it significantly in which tasks, and how many don't."""
    found = []
    for reference, methods in results.references.items():
        named = "the single-task baselines" if reference == BASELINE else reference
        tests = [(label, task, one) for label, part in methods.items() for task, one in part.tasks.items()]
        tested = [one for one in tests if one[2].estimate.n >= FEWEST]
        if not tested:
            found.append(
                f"Against {named}: fewer than {FEWEST} common seeds, so nothing is tested and nothing is shown."
            )
            continue
        sure = [one for one in tested if one[2].significant]
        better = [one for one in sure if one[2].gain > 0 and one[2].beyond_examples]
        worse = [one for one in sure if one[2].gain < 0 and one[2].beyond_examples]
        within = [one for one in sure if not one[2].beyond_examples]
        parts = [
            *([f"significantly better: {_listed(better)}"] if better else []),
            *([f"significantly worse: {_listed(worse)}"] if worse else []),
            *([f"consistent over the seeds but within the uncertainty of the test examples: {_listed(within)}"]
              if within else []),
        ]  # fmt: skip
        rest = len(tested) - len(sure)
        last = f"no significant difference in the other {rest} of {len(tested)} tests" if parts else (
            f"no significant difference in any of {len(tested)} tests")  # fmt: skip
        found.append(f"Against {named} (p < {SIGNIFICANT:.2g} after Holm's correction): "
                     f"{'; '.join([*parts, *([last] if rest else [])])}.")  # fmt: skip
        if len(tested) < len(tests):
            untested = [f"{label} in {task}" for label, task, one in tests if one.estimate.n < FEWEST]
            found[-1] += f" Not tested, with fewer than {FEWEST} common seeds: {_some(untested)}."
        if overall := [label for label, part in methods.items() if part.test.holm < SIGNIFICANT]:
            found[-1] += f" Δm differs significantly for {', '.join(_overall(label, methods) for label in overall)}."
    return found


def warnings(results: Results) -> list[str]:
    """Caveats about the tables, a sentence each."""
    return [
        *_unpaired(results),
        *_undertrained(results),
        *_mixed_versions(results),
        *_different_examples(results),
        *_negligible(results),
    ]


def _listed(tests: Sequence[tuple[str, str, Difference]]) -> str:
    return _some(
        [f"{label} in {task} ({change(one.estimate.mean, one.change.unit)}, p {p_value(one.test.holm, '= ')})"
         for label, task, one in tests]
    )  # fmt: skip


def _some(names: Sequence[str]) -> str:
    """The first of them, and how many more."""
    more = len(names) - MOST_NAMES
    return ", ".join([*names[:MOST_NAMES], *([f"and {more} more"] if more > 0 else [])])


def _overall(label: str, methods: Mapping[str, Against]) -> str:
    test = methods[label].test
    way = "better" if test.difference.mean < 0 else "worse"
    return f"{label} ({way}, p {p_value(test.holm, '= ')})"


def _unpaired(results: Results) -> Iterator[str]:
    """Methods that lack seeds, and over which seeds their differences therefore are."""
    seeds = results.plan.seeds
    for reference, methods in results.references.items():
        lacking: dict[str, list[str]] = {}
        for label, part in methods.items():
            for task, one in part.tasks.items():
                if len(one.change.seeds) < len(seeds):
                    used = ", ".join(map(str, one.change.seeds))
                    lacking.setdefault(used, []).append(f"{label} in {task}")
        for used, which in lacking.items():
            if used:
                yield (
                    f"Compared with {reference}, only the seeds {used} of {', '.join(map(str, seeds))} have a value on "
                    f"both sides for {_some(which)}: the differences are over these seeds, and the others are dropped "
                    "from both sides."
                )
            else:
                yield f"Compared with {reference}, no seed has a value on both sides for {_some(which)}."


def _undertrained(results: Results) -> Iterator[str]:
    counts = []
    for method, outcomes in results.outcomes.items():
        done = [one for one in outcomes if one.done]
        last = sum(one.best_epoch == one.epochs for one in done)
        if done and last > len(done) / 2:
            counts.append(f"{method} ({last} of {len(done)})")
    if counts:
        yield (
            f"The best epoch is the last one in most runs of {_some(counts)}: they are probably undertrained, and "
            "more training.epochs may change the comparison."
        )


def _mixed_versions(results: Results) -> Iterator[str]:
    found = Counter(_version(one) for group in results.outcomes.values() for one in group if one.environment)
    if len(found) > 1:
        counts = ", ".join(f"{version} ({n} runs)" for version, n in found.most_common())
        yield f"The runs were trained with different versions: {counts}. Use another folder to train all of them anew."


def _version(outcome: Outcome) -> str:
    environment = outcome.environment
    return f"mtl {environment['mtl']} with torch {environment['packages']['torch']}"


def _different_examples(results: Results) -> Iterator[str]:
    sizes: dict[str, set[int]] = {}
    for group in results.outcomes.values():
        for one in group:
            for task, n in one.examples.items():
                sizes.setdefault(task, set()).add(n)
    if differing := [f"{task} ({min(n):,} to {max(n):,})" for task, n in sizes.items() if len(n) > 1]:
        yield (
            f"The runs were not evaluated on the same number of examples: {', '.join(differing)}. The data may have "
            "changed between them; use another folder to train all of them anew."
        )


def _negligible(results: Results) -> Iterator[str]:
    found = [
        f"{task} {results.primary[task][1]}"
        for task, one in next(iter(results.references[BASELINE].values())).tasks.items()
        if one.change.unit == "percent" and one.change.denominator > abs(one.change.reference)
    ]
    if found:
        yield (
            f"The single-task baseline of {', '.join(found)} is below 1 % of what predicting the mean would have: "
            "percentages are of that 1 %."
        )


def epochs(results: Results) -> str:
    """Epochs of the runs, such as `20` or, with early stopping, `9 to 20`."""
    found = [one.epochs for group in results.outcomes.values() for one in group if one.done]
    if not found:
        return str(results.plan.experiment.training.epochs)
    return str(found[0]) if len(set(found)) == 1 else (
        f"{min(found)} to {max(found)} (median {statistics.median(found):g})")  # fmt: skip
