"""Configuration and sweep files by chance: each is accepted, or refused with one clear message.

Three kinds of files: real settings with values of right and wrong types; whole files, damaged; and
text that looks like YAML. They go through what `train --config` and `sweep FILE` read, check and
plan with, in this process, and nothing is trained.
"""

import contextlib
import json
import random
import signal
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from mbpo_jax import config_io
from mbpo_jax.cli.train import layers_of
from mbpo_jax.config import ALGORITHMS, Config, refuse_unread
from mbpo_jax.errors import UserError
from mbpo_jax.files import to_plain
from mbpo_jax.presets import SWEEPS, preset
from mbpo_jax.sweeps import manifest, store
from mbpo_jax.training import run_directory
from mbpo_jax.training.group import group_of
from mbpo_jax.yaml_files import parse_yaml, to_yaml

SECONDS = 2.0
"""Of CPU, within which a file has to be answered."""
LETTERS = 2_000
"""Of a message, at most."""
WHOLE = 20
"""One in so many accepted configurations is written and read as a whole, the others as far as they
differ from their preset: a whole one takes as long as a hundred other examples."""
ENVIRONMENT = "inverted_pendulum"

_NUMBERS = (
    *("0", "-0", "1", "-1", "2", "3", "8", "64", "100", "10000", "2147483647", "2147483648"),
    *("4294967295", "4294967296", "9223372036854775808", "1e22", "1e2", "1e400", "-1e-400", "1e-3"),
    *(".5", "0.5", "1.", ".", "1_00", "1__0", "_1", "0x_", "0x1F", "0o17", "010", "08", "0b101"),
    *("1:30", ".inf", "-.INF", ".nan", "1e", "+", "-", "+.5e+5", "9" * 400, "0x" + "f" * 300),
)
_WORDS = (
    *("true", "false", "yes", "off", "null", "~", "", "sac", "mbpo", "mpc", "step", "all", "rp"),
    *("early", "budget", "threshold", "hopper", "debug", "fast", "no_such_module:make", ":", "a:"),
    *("2001-13-45", "2001-12-14 21:59:43", "=", "<<", "é", "名前", "\N{SNOWMAN}", "'it''s'"),
    *('"\\UFFFFFFFF"', '"\\ud800"', '"\\0"', '"\\n"', '"\\x85"', '"1"', "'1e5'", "'0o17'", "'~'"),
    *("!!float x", "!!bool", "!!map [1]", "!!python/name:os.system", "!own 1", "*a", "&a 1"),
)
_TOKENS = (
    *("- ", "? ", ": ", ", ", "[", "]", "{", "}", "\n", "\n  ", "\n    ", "\t", " ", "#", "|", ">"),
    *("&a ", "*a", "&b ", "*b", "!", "!!", "!<", "%YAML 1.2\n", "---\n", "...\n", "<<: ", "'", '"'),
    *("@", "`", "\\", "\0", "\x7f", "\x85", "\u2028", "\ufeff", "seed: ", "sac: ", "env: "),
)
_SWEEP_FIELDS = (*manifest.FIELDS, "seed", "bogus")


class Outcome(NamedTuple):
    """How many files were answered, and how.

    Attributes:
      accepted: made a configuration, or runs, which survived being written and read.
      refused: with the project's own error.
      unexpected: the smallest file for every other end, by what it was and where.
      seconds: in all.
    """

    accepted: int
    refused: int
    unexpected: dict[str, bytes]
    seconds: float


class _TookTooLong(BaseException):
    """No `Exception`, so that nobody takes it for another."""


def try_files(
    rng: random.Random, examples: int | None = None, seconds: float | None = None
) -> Outcome:
    """Try files by chance, so many or for so long, in the main thread.

    Args:
      rng: all chance.
      examples: how many; no limit if None.
      seconds: of wall time, after which no further one is tried; no limit if None.
    """
    began, ends, unexpected = time.monotonic(), Counter(), {}
    valid = [path.read_text() for path in SWEEPS.values()]
    valid += [config_io.dump_yaml(preset(ENVIRONMENT, "debug")), *map(_small_file, range(20))]
    in_memory = "/dev/shm" if Path("/dev/shm").is_dir() else None  # disks are slower than the rest
    with tempfile.TemporaryDirectory(dir=in_memory) as folder:
        path = Path(folder, "settings.yaml")
        while (examples is None or ends.total() < examples) and (
            seconds is None or time.monotonic() - began < seconds
        ):
            sweeps = rng.random() < 0.4
            content = _file(rng, valid, sweeps)
            path.write_bytes(content)
            end = _end_of(_plan_sweep if sweeps else _plan_run, path, rng.randrange(WHOLE) == 0)
            ends[end if end in ("accepted", "refused") else "unexpected"] += 1
            if end not in ("accepted", "refused"):
                kind = f"{'sweep' if sweeps else 'train'}: {end}"
                unexpected[kind] = min(content, unexpected.get(kind, content), key=len)
    return Outcome(ends["accepted"], ends["refused"], unexpected, time.monotonic() - began)


def _end_of(plan: Callable[[Path, bool], None], path: Path, whole: bool) -> str:
    """Return "accepted", "refused", or what happened instead and where."""
    try:
        with _limited(SECONDS):
            plan(path, whole)
    except UserError as error:
        return "refused" if all(map(_is_message, error.args or [""])) else "a message that is none"
    except (Exception, _TookTooLong) as error:
        frames = traceback.extract_tb(error.__traceback__)
        return f"{type(error).__name__} in {frames[-1].name}"
    return "accepted"


def _is_message(text: Any) -> bool:
    return isinstance(text, str) and 0 < len(text) <= LETTERS and text.isprintable()


@contextlib.contextmanager
def _limited(seconds: float) -> Iterator[None]:
    def stop(*_):
        raise _TookTooLong

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def _plan_run(path: Path, whole: bool) -> None:
    layers = layers_of(["train", ENVIRONMENT, "--config", str(path)])
    config = layers.config
    refuse_unread(config, layers.asked_for)
    assert len(group_of(config).runs) == config.num_seeds
    run_directory.default(config)
    if whole:
        base, text = Config(), config_io.dump_yaml(config)
    else:
        changed = config_io.differences(layers.usual, config)
        values = {name: to_plain(new) for name, (_, new) in changed.items()}
        base, text = layers.usual, to_yaml(config_io.nested(values))
    assert config_io.apply(base, parse_yaml(text, "written"), "written") == config


def _plan_sweep(path: Path, whole: bool) -> None:
    runs = manifest.read_sweep(path)
    plan = store.plan(path.with_name("absent"), runs)
    assert sum(len(unit.group.runs) for unit in plan.new) == len(runs)
    if whole:
        text = config_io.dump_yaml(runs[0])
        assert config_io.apply(Config(), parse_yaml(text, "written"), "written") == runs[0]


def _file(rng: random.Random, valid: list[str], sweeps: bool) -> bytes:
    """Return a file: settings with values by chance, a damaged file, or text like YAML."""
    kind = rng.random()
    if kind < 0.6:
        return (_sweep(rng) if sweeps else _settings(rng, rng.randint(1, 6))).encode()
    if kind < 0.85:
        return _damaged(rng, rng.choice(valid).encode())
    parts = (_NUMBERS, _WORDS, _TOKENS, _TOKENS)
    return "".join(rng.choice(rng.choice(parts)) for _ in range(rng.randint(0, 30))).encode()


def _settings(rng: random.Random, number: int) -> str:
    lines = []
    for path in rng.sample([*config_io.defaults()], number):
        *groups, name = path.split(".")
        if rng.random() < 0.03:  # misspelt
            name = rng.choice(("", "__class__", "title", "vars", name[:-1], name * 30, "é", "1"))
        value = _value(rng, config_io.defaults()[path])
        lines.append(f"{groups[0]}: {{{name}: {value}}}" if groups else f"{name}: {value}")
    return "\n".join(lines)


def _value(rng: random.Random, usual: Any = None) -> str:
    """Return a value as it stands in a file, often of the type that a setting has."""
    kind = rng.random()
    if kind < 0.45:
        return _near(rng, usual)
    if kind < 0.7:
        return rng.choice(_NUMBERS)
    if kind < 0.85:
        return rng.choice(_WORDS)
    if kind < 0.97:
        number = rng.choice((0, 1, 2, 3, 120))
        return f"[{', '.join(rng.choice(('8', *_NUMBERS, *_WORDS)) for _ in range(number))}]"
    depth = rng.choice((1, 10, 30, 400))
    return rng.choice(("[" * depth + "]" * depth, "{a: " * depth + "1" + "}" * depth, "{a: 1}"))


def _near(rng: random.Random, usual: Any) -> str:
    """Return a value like a setting's default, as a file has it."""
    if isinstance(usual, bool):
        return rng.choice(("true", "false"))
    if isinstance(usual, int):
        return str(rng.choice((usual, usual * 2, usual + 1, rng.randrange(5000))))
    if isinstance(usual, float):
        return repr(rng.choice((usual, usual / 3, rng.random(), 10 ** rng.uniform(-12, 12))))
    if isinstance(usual, tuple):
        return f"[{', '.join(_near(rng, part) for part in usual)}]"
    return "null" if usual is None else str(usual)


def _sweep(rng: random.Random) -> str:
    """Return a sweep file, often a sound one."""
    fields = {
        "environments": rng.choice(("[pendulum]", "[hopper, pendulum]", "[inverted_pendulum]")),
        "algorithms": f"[{', '.join(rng.sample(list(ALGORITHMS), rng.randint(1, 2)))}]",
        **_axes_of_sweep(rng),
    }
    if rng.random() < 0.2:
        part = ", ".join(f"{name}: {value}" for name, value in _axes_of_sweep(rng).items())
        fields["parts"] = f"[{{{part}}}]"
    if rng.random() < 0.3:
        fields[rng.choice(_SWEEP_FIELDS)] = _value(rng, rng.choice((3, "sac", (3, 5))))
    if rng.random() < 0.1:
        del fields[rng.choice(list(fields))]
    return "\n".join(f"{name}: {value}" for name, value in fields.items())


def _axes_of_sweep(rng: random.Random) -> dict[str, str]:
    def setting(several: bool) -> str:
        path = rng.choice(list(config_io.defaults()))
        usual = config_io.defaults()[path]
        values = [_near(rng, usual) if rng.random() < 0.8 else _value(rng) for _ in range(2)]
        return f"{{{path}: {f'[{values[0]}, {values[1]}]' if several else values[0]}}}"

    made: dict[str, Callable[[], str]] = {
        "seeds": lambda: rng.choice(("1", "2", "[0, 7]", "[8, 5, 8]", "3", "5", _value(rng))),
        "settings": lambda: setting(False),
        "grid": lambda: setting(True),
        "variants": lambda: f"[{setting(False)}, {setting(False)}]",
        "presets": lambda: rng.choice(("[debug]", "[fast, debug]", "[hopper]")),
        "log": lambda: rng.choice(("[tensorboard]", "[]", "[wanbd]")),
    }
    return {name: made[name]() for name in rng.sample(list(made), rng.randint(0, 2))}


def _small_file(seed: int) -> str:
    """Return a file that is read quickly, in JSON every second time."""
    rng = random.Random(seed)
    paths = rng.sample(list(config_io.defaults()), 5)
    values = config_io.nested({path: to_plain(config_io.defaults()[path]) for path in paths})
    return json.dumps(values) if seed % 2 else to_yaml(values)


def _damaged(rng: random.Random, content: bytes) -> bytes:
    """Return a file with bytes flipped, put in, or cut, or a line twice."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        place = rng.randrange(len(data) + 1)
        kind = rng.randrange(5)
        if kind == 0 and place < len(data):
            data[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[place:place] = rng.choice(rng.choice((_NUMBERS, _WORDS, _TOKENS))).encode()
        elif kind == 2:
            del data[place : place + rng.randint(1, 20)]
        elif kind == 3:
            del data[place:]
        else:
            lines = data.splitlines(keepends=True)
            if lines:
                line = rng.choice(lines)
                data = bytearray(b"".join([*lines, line]))
    return bytes(data)
