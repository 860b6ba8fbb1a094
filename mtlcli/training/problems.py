"""What is wrong with an experiment's parts, with the place of each in the YAML file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mtlcli.config import Experiment
from mtlcli.error_origin import described, plugin_spot
from mtlcli.errors import ConfigError, MtlError, OptionError, Problem

EXPECTED = (ValueError, TypeError, RuntimeError, ArithmeticError, AssertionError)  # of our components, or torch's


class Problems:
    """Collects the problems that an experiment's parts raise."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self.found: list[Problem] = []

    @contextmanager
    def at(self, path: str) -> Iterator[None]:
        """Collect the problem a component at `path` raises, and go on after the block."""
        try:
            yield
        except ConfigError as error:
            self.found += [self._placed(problem, path) for problem in error.problems]
        except OptionError as error:
            self.found += [self.experiment.problem(f"{path}.{key}", reason) for key, reason in error.refused.items()]
        except MtlError:
            raise
        except (Exception, SystemExit) as error:
            if not isinstance(error, EXPECTED) and plugin_spot(error) is None:
                raise
            self.found.append(self.experiment.problem(path, described(error)))

    def _placed(self, problem: Problem, path: str) -> Problem:
        """The problem with its place, where it has none: that of `path`."""
        place = self.experiment.problem(path, "").message.strip()  # " (set by the override …)", or nothing
        has_place = bool(place) and problem.message.endswith(place)
        if problem.mark or has_place or problem.path not in ("", path):
            return problem
        return self.experiment.problem(path, problem.message)

    @contextmanager
    def now(self, path: str) -> Iterator[None]:
        """Raise at once the ConfigError for what a component at `path` raises."""
        problems = Problems(self.experiment)
        with problems.at(path):
            yield
        problems.check()

    def check(self) -> None:
        if self.found:
            raise ConfigError(self.found)
