"""What signals do to the program, from its first line on.

The first thing that the program loads, so it loads little. Whoever imports `mbpo_jax` as a library
keeps the signals' handlers as they are until something is trained.
"""

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

from mbpo_jax.exit_codes import KILLED_BY_CTRL_C, OF_OUTCOME

HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
"""Signals that ask for an end; SIGUSR1 and SIGUSR2 are what clusters send ahead of a time limit."""
PATIENCE = 0.5
"""Seconds in which Python may end by itself."""
_LOADER = "importlib._bootstrap"
_SWALLOWERS = {_LOADER, "jax._src.callback", "jax._src.lib", "asyncio.base_events"}
"""Modules within which an exception would be swallowed, or become another: what XLA and Python call
back, at each look for garbage too, and the event loop in which Orbax reads."""

_last_acts: list[Callable[[], None]] = []
_is_watched = _is_ended = False


def answer() -> None:
    """Have signals end this process within a second: who asks for an end sees no crash.

    Python raises `KeyboardInterrupt` or `SystemExit`, and the process ends without them where
    Python hears of no signal, as within a call of XLA that compiles for minutes. What trains takes
    signals itself, and saves (`training.interruption`); then a second Ctrl-C ends it at once.
    """
    for number in HANDLED:
        if is_heard(number):
            signal.signal(number, _end)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reader,), daemon=True).start()
    global _is_watched
    _is_watched = True


def settle(code: int) -> None:
    """Have this process end with a code, whatever signals still come; only goodbyes are left.

    After a signal that nothing waited for there are none: XLA would wait for what it compiles.
    """
    if _is_ended:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        os._exit(code)
    signal.set_wakeup_fd(-1)  # what watches for a second Ctrl-C hears no more
    for number in HANDLED:
        if is_heard(number):
            signal.signal(number, lambda *_: os._exit(code))


def is_watched() -> bool:
    """Return whether this is the program, which a second Ctrl-C ends without an exception."""
    return _is_watched


def is_heard(number: int) -> bool:
    """Return whether a signal is not ignored, as whoever starts a process may want it (`nohup`)."""
    return signal.getsignal(number) != signal.SIG_IGN


@contextlib.contextmanager
def ends_with_us(kill: Callable[[], None]) -> Iterator[None]:
    """Have `kill` called if signals end this process, or this block, before it is done."""
    _last_acts.append(kill)
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        kill()
        raise
    finally:
        _last_acts.remove(kill)


def _end(number: int, frame: FrameType | None) -> None:
    """Answer a signal where nothing would have to be saved."""
    global _is_ended
    _is_ended, within = True, set(_modules(frame))
    is_loading = _LOADER in within
    if is_loading or number != signal.SIGINT:
        name, left = signal.Signals(number).name, "what was saved is kept"
        left = "nothing was started" if is_loading else left
        _say(f"ended by {name}; {left}, and the same command can be given again")
    if within & _SWALLOWERS:
        _leave(number)
    raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(_code(number))


def _modules(frame: FrameType | None) -> Iterator[str]:
    while frame is not None:
        yield frame.f_globals.get("__name__", "")
        frame = frame.f_back


def _code(number: int) -> int:
    return KILLED_BY_CTRL_C if number == signal.SIGINT else OF_OUTCOME["interrupted"]


def _watch(reader: int) -> None:
    """End the process where it does not end by itself; `reader` yields the signals' numbers."""
    ctrl_c = 0
    while True:
        number = os.read(reader, 1)[0]
        ctrl_c += number == signal.SIGINT
        if signal.getsignal(number) is _end:
            time.sleep(PATIENCE)  # for what is closed on the way out
            break
        if ctrl_c == 2:
            break
    name = signal.Signals(number).name
    _say(f"ended by {name} amid what it did; the same command goes on from what is saved")
    _leave(number)


def _leave(number: int) -> None:
    """End the process here and now."""
    for act in list(_last_acts):
        act()
    if os.isatty(1):
        os.write(1, b"\x1b[?25h\n")  # a bar hides the cursor
    os._exit(_code(number))


def _say(text: str) -> None:
    """Write a line to standard error, past Python's buffers, unless nobody takes it just now."""
    with contextlib.suppress(OSError, ValueError):
        if select.select([], [2], [], 0.0)[1]:
            os.write(2, f"mbpo-jax: {text}\n".encode())
