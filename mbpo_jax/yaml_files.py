"""YAML as this project reads and writes it: fields with plain values; nothing runs, nothing grows.

Of YAML 1.2 there are its core types: text, numbers, true, false, null, lists and fields. There are
no tags and no dates. PyYAML parses; it follows YAML 1.1, so what a plain word means is said here.
Files are small, which keeps the time short that any of them can take: a parser in Python needs some
ten microseconds a byte.
"""

import re
import stat
from pathlib import Path
from typing import Any

import yaml

from mbpo_jax.errors import ConfigError, shown

MOST_BYTES = 2**16
"""Of a file; a complete configuration has 5,000."""
MOST_VALUES = 20_000
"""In a file, each counted as often as an alias repeats it."""
MOST_DEPTH = 20
"""Of fields and lists in one another; a sweep file needs 8."""
MOST_LETTERS = 100
"""In the name of a field, dots included."""

# What a plain word means: the first that fits. A number that both YAML 1.1 and 1.2 have is the same
# in both; `1_000` is of the former alone, `1e-3` and `0o17` of the latter.
_WORDS = {
    "null": r"~|null|Null|NULL|",
    "bool": r"true|True|TRUE|false|False|FALSE",
    "int": r"[-+]?(0b[01_]+|0o[0-7_]+|0x[0-9a-fA-F_]+|[0-9][0-9_]*)",
    "float": r"[-+]?([0-9][0-9_]*(\.[0-9_]*)?|\.[0-9][0-9_]*)([eE][-+]?[0-9]+)?"
    r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
    "merge": r"<<",
}
_CORE = "tag:yaml.org,2002:"
_NAMES = (f"{_CORE}str", f"{_CORE}merge")
"""What the name of a field is."""


class _Loader(yaml.SafeLoader):
    """Knows no tags, and of plain words those above alone."""

    def fetch_flow_collection_start(self, TokenClass: type) -> None:
        # The scanner looks far ahead, and at all that is open at every step.
        if self.flow_level >= MOST_DEPTH:
            raise yaml.MarkedYAMLError(problem=_TOO_DEEP, problem_mark=self.get_mark())
        super().fetch_flow_collection_start(TokenClass)

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()
        if getattr(event, "tag", None) is not None:
            tag = event.tag.replace(_CORE, "!!")
            raise _wrong(event, f"there are no tags here; leave {shown(tag)} out")
        return super().compose_node(parent, index)


class _Dumper(yaml.SafeDumper):
    """Quotes text that YAML 1.1 or 1.2 would take for something else."""


_Loader.yaml_implicit_resolvers = {}  # none of YAML 1.1
for _name, _pattern in _WORDS.items():
    for _kind in (_Loader, _Dumper):
        _kind.add_implicit_resolver(_CORE + _name, re.compile(rf"({_pattern})\Z"), None)


def _number(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int | float:
    is_whole = node.tag == f"{_CORE}int"
    try:
        if not is_whole:
            return loader.construct_yaml_float(node)
        value = int(node.value, 0)
        float(value)
    except (ValueError, OverflowError) as error:
        text = shown(node.value)
        if re.match("[-+]?0[0-9]", node.value):  # octal in YAML 1.1, decimal in 1.2
            problem = f"{text} can be read in two ways; leave the first 0 out, or write 0o10 for 8"
        else:
            problem = f"{text} is no number, or too large a one; put text into quotes"
        raise _wrong(node, problem) from error
    return value


for _name in ("int", "float"):
    _Loader.add_constructor(_CORE + _name, _number)

_Dumper.add_representer(
    list,
    lambda dumper, values: dumper.represent_sequence(f"{_CORE}seq", values, flow_style=True),
)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file of fields, nested as its writer likes, without checking them.

    Raises:
      ConfigError: the file cannot be read, is no YAML of the kind above, or holds something else
        than fields; the message says where.
    """
    return parse_yaml(read_text(path), str(path))


def read_text(path: Path) -> str:
    """Read a small text file, and nothing that could keep a reader waiting, such as a pipe.

    Raises:
      ConfigError: it cannot be read, or is no text file, or is too large.
    """
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            kind = "a directory" if stat.S_ISDIR(mode) else "a device, a pipe or a socket"
            raise ConfigError(f"{path}: is {kind}; name a file")
        with open(path, "rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    _check_size(len(data), str(path))
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"{path}: cannot be read: it is no text file: line {line} is not UTF-8"
        ) from error


def parse_yaml(text: str, source: str) -> dict[str, Any]:
    """Return the fields that a YAML text holds; see `read_yaml`.

    Args:
      text: of the whole file.
      source: where it comes from, for messages.

    Raises:
      ConfigError: as `read_yaml`.
    """
    _check_size(len(text), source)
    try:
        loader = _Loader(text)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        problem = f"the character {shown(chr(error.character))} cannot stand in YAML"
        raise ConfigError(f"{source}: line {line}: {problem}") from error
    try:
        root = loader.get_single_node()
        if root is None:
            return {}
        _check(root)
        content = loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        mark, parts = error.problem_mark or error.context_mark, (error.context, error.problem)
        problem = ": ".join(filter(None, parts))
    except RecursionError:
        mark, problem = loader.get_mark(), _TOO_DEEP
    except (ValueError, OverflowError) as error:  # of an escape such as "\UFFFFFFFF"
        mark, problem = loader.get_mark(), f"is no YAML: {error}"
    else:
        if content is None or isinstance(content, dict):
            return content or {}
        raise ConfigError(f"{source}: holds no fields; write lines such as 'num_seeds: 4'")
    raise ConfigError(f"{source}: {_place(mark)}{problem[: MOST_LETTERS * 2]}")


def to_yaml(values: dict[str, Any]) -> str:
    """Write fields as YAML, each on a line of its own, lists included."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False)


_NAMES_ARE = "they are words such as num_seeds"
_TOO_DEEP = f"more than {MOST_DEPTH} fields or lists stand in one another"


def _check(root: yaml.Node) -> None:
    """Look at all that a file holds before it is made, as often as aliases repeat it.

    Raises:
      yaml.MarkedYAMLError: it is too much or too deep, as where an alias stands in what it names;
        or a name is none, or is given twice.
    """
    waiting, count = [(root, 1)], 0
    while waiting:
        node, depth = waiting.pop()
        count += 1
        if count > MOST_VALUES:
            raise _wrong(node, f"the file holds more than {MOST_VALUES:,} values; divide it")
        if depth > MOST_DEPTH:
            raise _wrong(node, _TOO_DEEP)
        below: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            _check_names([name for name, _ in node.value])
            below = [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            below = node.value
        elif any("\ud800" <= letter <= "\udfff" for letter in node.value):
            raise _wrong(node, f"{shown(node.value)} holds half a character; write it out")
        waiting += [(part, depth + 1) for part in reversed(below)]


def _check_names(names: list[yaml.Node]) -> None:
    seen = set()
    for name in names:
        text = name.value
        if not isinstance(name, yaml.ScalarNode) or name.tag not in _NAMES:
            what = shown(text) if isinstance(text, str) else "a list or group"
            raise _wrong(name, f"{what} is no name of a field; {_NAMES_ARE}")
        if not text.isprintable() or len(text) > MOST_LETTERS:
            raise _wrong(name, f"{shown(text)} is no name of a field; {_NAMES_ARE}")
        if text in seen:
            raise _wrong(name, f"{text!r} is given twice; keep one of them")
        seen.add(text)


def _wrong(place: yaml.Node | yaml.Event, problem: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=place.start_mark)


def _place(mark: Any) -> str:
    return f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""


def _check_size(size: int, source: str) -> None:
    if size > MOST_BYTES:
        raise ConfigError(f"{source}: holds more than {MOST_BYTES // 2**10} KiB; divide it")
