"""Requests to stop a run by Ctrl-C or SIGTERM."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType

from mtlcli.errors import InterruptedRunError


class StopRequest:
    """Context in which the first SIGINT or SIGTERM is a request to stop, and the second one acts as usual.

    Args:
        saved: path of the checkpoint, for the message.

    Attributes:
        requested: the signal that was received; None if there was none.
    """

    def __init__(self, saved: str = "") -> None:
        self.saved = saved
        self.requested: signal.Signals | None = None
        self._previous: dict[signal.Signals, object] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():  # Python takes handlers from no other thread
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def poll(self) -> None:
        """Check for a signal. A run calls this after every step and before every batch of an evaluation.

        Raises:
            InterruptedRunError: if a signal was received.
        """
        if self.requested is not None:
            name = "interrupted (Ctrl-C)" if self.requested == signal.SIGINT else "terminated (SIGTERM)"
            message = f"{name}; saved {self.saved}. Resume with: --resume auto"
            raise InterruptedRunError(message, 128 + self.requested)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.requested = signal.Signals(number)
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._previous = {}
