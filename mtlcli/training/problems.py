"""Problems with the components of an experiment, with the place of each in the YAML file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mtlcli.config import Experiment
from mtlcli.error_origin import describe_error, plugin_location
from mtlcli.errors import ConfigError, MtlError, OptionError, Problem

EXPECTED = (ValueError, TypeError, RuntimeError, ArithmeticError, AssertionError)  # of our components, or torch's


class Problems:
    """Collector of the problems that the components of an experiment raise.

    Args:
        experiment: the experiment.

    Attributes:
        collected: the problems so far.
    """

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self.collected: list[Problem] = []

    @contextmanager
    def at(self, path: str) -> Iterator[None]:
        """Return a context that collects the problem that the component at a key path raises in it."""
        try:
            yield
        except ConfigError as error:
            self.collected += [self._placed(problem, path) for problem in error.problems]
        except OptionError as error:
            self.collected += [
                self.experiment.problem(f"{path}.{key}", reason) for key, reason in error.refused.items()
            ]
        except MtlError:
            raise
        except (Exception, SystemExit) as error:
            if not isinstance(error, EXPECTED) and plugin_location(error) is None:
                raise
            self.collected.append(self.experiment.problem(path, describe_error(error)))

    def _placed(self, problem: Problem, path: str) -> Problem:
        """Return the problem with the place of `path`, if it has none."""
        place = self.experiment.problem(path, "").message.strip()  # " (set by the override …)", or nothing
        has_place = bool(place) and problem.message.endswith(place)
        if problem.mark or has_place or problem.path not in ("", path):
            return problem
        return self.experiment.problem(path, problem.message)

    @contextmanager
    def now(self, path: str) -> Iterator[None]:
        """Return a context that raises ConfigError for the problem that the component at a key path raises in it."""
        problems = Problems(self.experiment)
        with problems.at(path):
            yield
        problems.check()

    def check(self) -> None:
        """Check that no problem was collected.

        Raises:
            ConfigError: if there are problems; the message lists them.
        """
        if self.collected:
            raise ConfigError(self.collected)
