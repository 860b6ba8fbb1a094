"""Ctrl-C and SIGTERM as a request to stop after the step in hand, with a checkpoint saved."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType

from mtlcli.errors import InterruptedRunError


class StopRequest:
    """While entered, the first SIGINT or SIGTERM sets `requested`; the second one acts as it always did."""

    def __init__(self) -> None:
        self.requested: signal.Signals | None = None
        self._previous: dict[signal.Signals, object] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():  # Python takes handlers from no other thread
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._request)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def error(self, saved: str) -> InterruptedRunError:
        """The error to raise once a checkpoint is saved at `saved`."""
        assert self.requested is not None
        name = "interrupted (Ctrl-C)" if self.requested == signal.SIGINT else "terminated (SIGTERM)"
        return InterruptedRunError(f"{name}; saved {saved}. Go on with: --resume auto", 128 + self.requested)

    def _request(self, number: int, frame: FrameType | None) -> None:
        self.requested = signal.Signals(number)
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._previous = {}
