"""Errors that are reported without a traceback, with their exit codes, and hints for mistyped names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


class MtlError(Exception):
    """Base of the errors for users, printed as one message without a traceback. Exit code 1: the run failed."""

    exit_code = 1


class RequirementError(MtlError):
    """The final metrics do not satisfy a `--require TASK.METRIC>=X`. Exit code 3."""

    exit_code = 3


@dataclass(frozen=True)
class Mark:
    """Location in a file, with line and column counted from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True)
class Problem:
    """A problem of a configuration.

    Args:
        message: the problem, what was expected and, if available, a suggestion.
        path: key path of the value, such as `tasks.digit.kind`; empty for the whole file.
        mark: location in the YAML file; None for values from elsewhere.
    """

    message: str
    path: str = ""
    mark: Mark | None = None

    def __str__(self) -> str:
        location = [str(self.mark)] if self.mark else []
        return ": ".join([*location, *([self.path] if self.path else []), self.message])


class ConfigError(MtlError):
    """A command or configuration is invalid; contains all problems. Exit code 2."""

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
    """A component rejects the values of some options.

    Args:
        refused: key path of each option in the component's entry, such as `lr` or `augment.0.p` → the reason.
    """

    def __init__(self, refused: Mapping[str, str]) -> None:
        self.refused = dict(refused)
        super().__init__("; ".join(f"{option}: {reason}" for option, reason in self.refused.items()))

    def below(self, path: str) -> OptionError:
        """Return the error for an entry that is itself an option, at `path`."""
        return OptionError({f"{path}.{option}": reason for option, reason in self.refused.items()})


def suggest(name: str, choices: Iterable[str]) -> str:
    """Suggest similar names for a mistyped one.

    Args:
        name: the mistyped name.
        choices: the valid names.

    Returns:
        " Did you mean 'x'?" with up to three names that differ by a typing error or start with `name`; empty if none
        does.
    """
    by_lower = {other.lower(): other for other in choices}
    wanted = name.lower()
    ratios = {other: difflib.SequenceMatcher(None, other, wanted).ratio() for other in by_lower}
    # half of a short name may be mistyped, but rarely its first letter
    similar = {
        other: ratio
        for other, ratio in ratios.items()
        if ratio >= (0.6 if len(name) < 7 and other[:1] == wanted[:1] else 0.75)
    }
    best = [other for other, ratio in similar.items() if ratio == max(similar.values())]
    if not best and len(wanted) > 2:
        best = sorted((other for other in by_lower if other.startswith(wanted)), key=len)[:1]
    return f" Did you mean {' or '.join(repr(by_lower[other]) for other in best[:3])}?" if best else ""


def match_spelling(name: str, choices: Iterable[str]) -> str | None:
    """Find a name that differs in its spelling only: case, `-` for `_`, singular or plural, or one typing error.

    Args:
        name: the name.
        choices: the valid names.

    Returns:
        The valid name; None if there is none.
    """
    plain = {_plain(other): other for other in choices}
    if (wanted := _plain(name)) in plain:
        return plain[wanted]
    close = difflib.get_close_matches(wanted, list(plain), n=1, cutoff=0.9)
    return plain[close[0]] if close else None


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "").replace(" ", "").removesuffix("s")


class InterruptedRunError(MtlError):
    """A run was interrupted and has saved a checkpoint. Exit code 130 for Ctrl-C, 143 for SIGTERM."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code
