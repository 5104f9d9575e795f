"""How a process that trains is asked to end."""

import signal
import threading

from mbpo_jax.signals import HANDLED, is_heard, is_watched


class Interruption:
    """Remembers that a signal asked for an end, which comes once the running call is done.

    A second Ctrl-C raises `KeyboardInterrupt`, or ends the program at once (`signals.answer`).
    """

    def __enter__(self) -> "Interruption":
        self.requested, self._ctrl_c = False, 0
        # Python hands signals to its main thread alone; another one is not asked to end.
        here = threading.current_thread() is threading.main_thread()
        heard = [number for number in HANDLED if here and is_heard(number)]
        self._previous = {number: signal.signal(number, self._handle) for number in heard}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _: object) -> None:
        self.requested = True
        # Other signals may come twice, once to all processes and once through the one above.
        self._ctrl_c += number == signal.SIGINT
        if self._ctrl_c > 1 and not is_watched():
            raise KeyboardInterrupt
