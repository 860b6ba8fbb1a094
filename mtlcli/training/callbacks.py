"""Callbacks: code that is called while a run trains, to watch it."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence

from mtlcli import registry
from mtlcli.config import Experiment
from mtlcli.config.locations import Problems
from mtlcli.error_origin import error_reason, line_in
from mtlcli.errors import MtlError
from mtlcli.training.backward.base import StepResult
from mtlcli.training.evaluate import TaskMetrics
from mtlcli.training.failures import CallbackError
from mtlcli.training.run_summary import Summary
from mtlcli.training.state import TrainerState


class Callback:
    """Base of the callbacks; every method does nothing.

    A callback watches a run and must not change it: neither the state, nor the model's mode, nor torch's random
    generators. An exception that it raises ends the run as failed; its checkpoint is kept. To use a callback from YAML,
    register its class in a plugin with `mtlcli.registry.callbacks.register("name")`; the keyword-only parameters of its
    `__init__` are the options.
    """

    def on_fit_start(self, state: TrainerState) -> None:
        """Run before the first step, or the first one after a resume.

        Args:
            state: the state of the run; `state.header` has its folder and its numbers of examples and parameters.
        """

    def on_epoch_start(self, state: TrainerState) -> None:
        """Run before the first step of an epoch, or the first one after a resume in the middle of it.

        Args:
            state: the state of the run; `state.progress.epoch` epochs are finished, and `state.progress.step` steps of
                the current one are done.
        """

    def on_step_end(self, state: TrainerState, result: StepResult | None) -> None:
        """Run after each step, in the training loop: it should be fast.

        Args:
            state: the state of the run. `state.log.latest` has the latest losses that the host knows, by task.
            result: losses [columns] and weights [columns] of the step, on the training device. Reading one (`.item()`,
                `.tolist()`) waits for the device. None if no task had a label in the step.
        """

    def on_epoch_end(self, state: TrainerState, metrics: TaskMetrics) -> None:
        """Run after an epoch has been evaluated and saved.

        Args:
            state: the state of the run; `state.report` has the results of the epoch.
            metrics: task → metric → value on the split that `evaluation.split` names.
        """

    def on_fit_end(self, state: TrainerState, summary: Summary) -> None:
        """Run at the end, also of a run that failed or was interrupted.

        Args:
            state: the state of the run.
            summary: the content of summary.json; its `status` is `completed`, `failed` or `interrupted`.
        """


class Callbacks(Callback):
    """Several callbacks, called in their order.

    Args:
        callbacks: instances of subclasses of `Callback`; see `checked_callbacks`.
    """

    def __init__(self, callbacks: Sequence[Callback] = ()) -> None:
        self.callbacks = checked_callbacks(callbacks)

    def on_fit_start(self, state: TrainerState) -> None:
        """Call each callback. Its exception is raised as a `CallbackError`, here and in the other methods."""
        self._call("on_fit_start", state)

    def on_epoch_start(self, state: TrainerState) -> None:
        """Call each callback."""
        self._call("on_epoch_start", state)

    def on_step_end(self, state: TrainerState, result: StepResult | None) -> None:
        """Call each callback."""
        self._call("on_step_end", state, result)

    def on_epoch_end(self, state: TrainerState, metrics: TaskMetrics) -> None:
        """Call each callback."""
        self._call("on_epoch_end", state, metrics)

    def on_fit_end(self, state: TrainerState, summary: Summary) -> None:
        """Call every callback, whatever the others raise, and raise the first error then."""
        errors = []
        for callback in self.callbacks:
            try:
                _call(callback, "on_fit_end", state, summary)
            except MtlError as error:
                errors.append(error)
        if errors:
            raise errors[0]

    def _call(self, method: str, *arguments: object) -> None:
        for callback in self.callbacks:
            _call(callback, method, *arguments)


def checked_callbacks(callbacks: Iterable[Callback]) -> tuple[Callback, ...]:
    """Check that all callbacks are instances of subclasses of `Callback`.

    Args:
        callbacks: the callbacks.

    Returns:
        The callbacks as a tuple.

    Raises:
        TypeError: if `callbacks` is no list or tuple, or one of them is no instance of `Callback`.
    """
    if isinstance(callbacks, Callback | str) or not isinstance(callbacks, Iterable):
        raise TypeError(f"callbacks: expected a list of callbacks, got {_described(callbacks)}")
    instances = tuple(callbacks)
    for index, callback in enumerate(instances):
        if not isinstance(callback, Callback):
            raise TypeError(
                f"callbacks[{index}]: expected an instance of a subclass of mtlcli.Callback, got {_described(callback)}"
            )
    return instances


def make_callbacks(experiment: Experiment) -> list[Callback]:
    """Create the callbacks that an experiment names; one that can't be created raises ConfigError with its place."""
    callbacks: list[Callback] = []
    problems = Problems(experiment)
    for index, entry in enumerate(experiment.callbacks):
        with problems.at(f"callbacks.{index}"):
            callback = registry.callbacks[entry.name].create(**entry.options)
            if not isinstance(callback, Callback):
                raise TypeError(f"{entry.name} is registered as a callback, but is {_described(callback)}")
            callbacks.append(callback)
    problems.check()
    return callbacks


def _call(callback: Callback, method: str, *arguments: object) -> None:
    try:
        getattr(callback, method)(*arguments)
    except MtlError:
        raise
    except (Exception, SystemExit) as error:
        raise CallbackError(_message(callback, method, error)) from error


def _message(callback: Callback, method: str, error: BaseException) -> str:
    """Describe an exception of a callback in one line, with the innermost line in the callback's file."""
    name, text = type(error).__name__, error_reason(error)
    text = text if text.startswith((name, "calls ")) else f"{name}: {text}"
    code = getattr(inspect.unwrap(getattr(callback, method)), "__code__", None)
    spot = None if code is None else line_in(error, code.co_filename)
    place = f"in {method}" if spot is None else f"at {spot}"
    return f"the callback {type(callback).__name__} failed {place}: {text}"


def _described(value: object) -> str:
    """Describe a value that is no callback, such as `the function log_loss`."""
    if isinstance(value, type):
        hint = "; create an instance of it: " + value.__name__ + "()" if issubclass(value, Callback) else ""
        return f"the class {value.__name__}{hint}"
    if inspect.isroutine(value):
        return f"the function {getattr(value, '__name__', repr(value))}"
    name = type(value).__name__
    return "a single one; write [callback]" if isinstance(value, Callback) else f"{name} {value!r:.50}"
