"""How a process that trains is asked to end."""

import signal
import threading

HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
"""Signals that ask for an end."""


class Interruption:
    """Remembers that a signal asked for an end, which comes at the next look of the host.

    SIGUSR1 and SIGUSR2 are what clusters send ahead of a time limit. A second Ctrl-C ends the
    process at once.
    """

    def __enter__(self) -> "Interruption":
        self.requested = False
        # Python hands signals to its main thread alone; another one is not asked to end.
        here = threading.current_thread() is threading.main_thread()
        self._previous = {number: signal.signal(number, self._handle) for number in HANDLED if here}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _: object) -> None:
        self.requested = True
        # Other signals may come twice, once to all processes and once through the one above.
        if number == signal.SIGINT:
            signal.signal(number, self._previous[signal.SIGINT])
