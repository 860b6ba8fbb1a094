"""What can go wrong, and the exit code each thing ends the program with.

Floor: the lowest; imports nothing of `mtlcli`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


class MtlError(Exception):
    """Something the user should read: one message, no traceback. Exit code 1: the run failed."""

    exit_code = 1


class RequirementError(MtlError):
    """A `--require TASK.METRIC>=X` did not hold. Exit code 3."""

    exit_code = 3


@dataclass(frozen=True)
class Mark:
    """A place in a file: `line` and `column` count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True)
class Problem:
    """One thing wrong in a configuration.

    message: what is wrong, what was expected and, where there is one, the nearest right thing.
    path: the key path, such as `tasks.digit.kind`; empty for the whole file.
    mark: where it stands in the YAML file; None for values that came from elsewhere.
    """

    message: str
    path: str = ""
    mark: Mark | None = None

    def __str__(self) -> str:
        where = [str(self.mark)] if self.mark else []
        return ": ".join([*where, *([self.path] if self.path else []), self.message])


class ConfigError(MtlError):
    """The command or the configuration is wrong: all problems at once. Exit code 2."""

    exit_code = 2

    def __init__(self, problems: Problem | str | Iterable[Problem]) -> None:
        if isinstance(problems, str):
            problems = Problem(problems)
        self.problems = [problems] if isinstance(problems, Problem) else list(problems)
        super().__init__("\n".join(map(str, self.problems)))


class InputError(MtlError, ValueError):
    """Inputs that a trained model can't take: unknown dataset or column, wrong shape, type or value. Exit code 2."""

    exit_code = 2


class OptionError(ValueError):
    """A component refuses some of its options.

    refused: key path of each below the component's entry, such as `lr` or `augment.0.p` → the reason.
    """

    def __init__(self, refused: Mapping[str, str]) -> None:
        self.refused = dict(refused)
        super().__init__("; ".join(f"{option}: {reason}" for option, reason in self.refused.items()))

    def below(self, path: str) -> OptionError:
        """The same, of an option at `path`."""
        return OptionError({f"{path}.{option}": reason for option, reason in self.refused.items()})


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint for a mistyped `name`: " Did you mean 'x'?", or "" where nothing known is near.

    Near is what differs by a slip of the keyboard, or what `name` is the beginning of.
    """
    by_lower = {one.lower(): one for one in known}
    wanted = name.lower()
    ratios = {one: difflib.SequenceMatcher(None, one, wanted).ratio() for one in by_lower}
    # half of a short name may be a slip of the keyboard, which seldom is in the first letter
    slips = [
        one for one, ratio in ratios.items() if ratio >= (0.6 if len(name) < 7 and one[:1] == wanted[:1] else 0.75)
    ]
    best = [one for one in slips if ratios[one] == max(map(ratios.get, slips))]  # type: ignore[type-var]
    if not best and len(wanted) > 2:
        best = sorted((one for one in by_lower if one.startswith(wanted)), key=len)[:1]
    return f" Did you mean {' or '.join(repr(by_lower[one]) for one in best[:3])}?" if best else ""


def alike(name: str, known: Iterable[str]) -> str | None:
    """The one of `known` that is `name` in another spelling: case, `-` for `_`, singular or plural, one slip."""
    plain = {_plain(one): one for one in known}
    if (wanted := _plain(name)) in plain:
        return plain[wanted]
    found = difflib.get_close_matches(wanted, list(plain), n=1, cutoff=0.9)
    return plain[found[0]] if found else None


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "").replace(" ", "").removesuffix("s")


class InterruptedRunError(MtlError):
    """A run was asked to stop and has saved a checkpoint. Exit code 130 for Ctrl-C, 143 for SIGTERM."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code
