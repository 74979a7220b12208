"""Reads YAML files and names every mistake in one as `file:line: field: problem`.

Profiles, the taxonomy and the grasps all come through here. Files are limited in size, in nesting
depth and in what their aliases expand to, so that no file can hang or crash a reader.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from hoi_assets.errors import HoiError
from hoi_assets.text import BYTE_ORDER_MARK

# libyaml is ten times faster; PyYAML is sometimes built without it.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

MAX_BYTES = 4 * 1024 * 1024
MAX_DEPTH = 64
MAX_VALUES = 200_000  # keys and values, every alias expanded
MAX_LISTED = 20  # mistakes that one message lists
MAX_NUMBER_CHARACTERS = 64
# Type of a pydantic error whose input may hold a secret: it is not shown.
HIDDEN_INPUT = "hidden_input"
INTEGER = "tag:yaml.org,2002:int"
# All that is not text: controls but tab, line feed and carriage return; line and paragraph
# separators, byte order marks within, surrogates.
NOT_TEXT = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff\ud800-\udfff]"
)

# How PyYAML fails on `2020-13-45`, `!!bool maybe`, `!!int ""` or an endless integer.
FAILURES = (ValueError, LookupError, AttributeError, TypeError)

Location = tuple[str | int, ...]
Model = TypeVar("Model", bound=BaseModel)


class YamlError(HoiError):
    """Every mistake found in one or more YAML files.

    Args:
        mistakes: each as `file:line: field: problem`.
        remedy: what to do next.
        where: what the files are, e.g. "the taxonomy"; stands before a list of several mistakes.
    """

    def __init__(self, mistakes: Sequence[str], remedy: str, where: str) -> None:
        self.mistakes = tuple(mistakes)
        lines = list(mistakes[:MAX_LISTED])
        if len(mistakes) > MAX_LISTED:
            lines.append(f"and {len(mistakes) - MAX_LISTED} more")
        count = f"{len(mistakes)} mistakes in {where}:\n  " if len(mistakes) > 1 else ""
        super().__init__(count + "\n  ".join(lines), remedy)


class _Refused(Exception):
    """The file breaks a limit at a line."""

    def __init__(self, mark: Any, problem: str) -> None:
        super().__init__(problem)
        self.line = mark.line + 1 if mark else 1


@dataclass(frozen=True)
class YamlFile:
    """One YAML mapping with its node tree, which knows the line of each field."""

    path: Path
    node: yaml.MappingNode
    data: dict[Any, Any]

    @staticmethod
    def read(path: Path, mistakes: list[str]) -> "YamlFile | None":
        """Read one file; None after adding to `mistakes` where it holds no usable mapping."""
        text = _text(path, mistakes)
        if text is None:
            return None
        try:
            _check_nesting(text)
            loader = _Loader(text)
            node = loader.get_single_node()
            if node is None:
                raise _Refused(None, "is empty")
            if not isinstance(node, yaml.MappingNode):
                raise _Refused(None, "must hold `field: value` lines")
            _check_expansion(node)
            repeated = [f"{path}:{line}: {key}: is given twice" for line, key in _repeated(node)]
            mistakes += repeated
            data = _construct(loader, node)
        except _Refused as refused:
            mistakes.append(f"{path}:{refused.line}: file: {refused}")
            return None
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            line = mark.line + 1 if mark else 1
            problem = getattr(error, "problem", None) or " ".join(str(error).split())
            mistakes.append(f"{path}:{line}: file: is not valid YAML: {problem}")
            return None
        return None if repeated else YamlFile(path, node, data)

    def parse(self, model: type[Model], mistakes: list[str], **defaults: Any) -> Model | None:
        """Validate as `model`; None after adding each field's mistake to `mistakes`.

        Args:
            defaults: values of top-level fields that the file may leave out.
        """
        try:
            return model.model_validate({**defaults, **self.data})
        except ValidationError as error:
            mistakes += [
                self.mistake(found["loc"], _in_words(found))
                for found in error.errors(include_url=False, include_context=False)
            ]
            return None

    def rename(self, old: str, new: str) -> int | None:
        """Give a top-level field its new name; the line of the old one, or None where absent."""
        keys = [key for key, _ in self.node.value if key.value == old]
        if not keys or old not in self.data:
            return None
        self.data[new] = self.data.pop(old)
        keys[0].value = new
        return int(keys[0].start_mark.line) + 1

    def mistake(self, location: Location, problem: str) -> str:
        """`file:line: field: problem`."""
        field = ".".join(str(part) for part in location) or "file"
        return f"{self.path}:{self.line(location)}: {field}: {problem}"

    def line(self, location: Location) -> int:
        """Line, from 1, of the field at `location`, or of the nearest part of it that exists."""
        node: yaml.Node = self.node
        line = self.node.start_mark.line + 1
        for part in location:
            if isinstance(node, yaml.MappingNode):
                pairs = [pair for pair in node.value if pair[0].value == str(part)]
                if not pairs:
                    break
                key, node = pairs[-1]  # those merged in by `<<` come first
                line = key.start_mark.line + 1
            elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
                if part >= len(node.value):
                    break
                node = node.value[part]
                line = node.start_mark.line + 1
        return line


def read_yaml(path: Path, model: type[Model], remedy: str, where: str) -> Model:
    """Read and validate one file.

    Args:
        remedy, where: see `YamlError`.

    Raises:
        YamlError: naming line and field of every mistake found.
    """
    mistakes: list[str] = []
    file = YamlFile.read(path, mistakes)
    found = file.parse(model, mistakes) if file else None
    if found is None:
        raise YamlError(mistakes, remedy, where)
    return found


def _text(path: Path, mistakes: list[str]) -> str | None:
    """The file's text; None after adding to `mistakes` where it cannot be read as such."""
    problem = _unreadable(path)
    if problem is None:
        try:
            # A file that grows meanwhile is cut, and then refused below.
            with path.open("rb") as file:
                data = file.read(MAX_BYTES + 1)
            if len(data) > MAX_BYTES:
                problem = f"is larger than {MAX_BYTES // 1024**2} MiB"
            else:
                text = data.decode("utf-8")
                found = NOT_TEXT.search(text.removeprefix(BYTE_ORDER_MARK))
                if found is None:
                    return text
                line = text.count("\n", 0, found.start()) + 1
                mistakes.append(f"{path}:{line}: file: {_not_text(found)}")
                return None
        except UnicodeDecodeError as error:
            problem = f"is not UTF-8 text ({error.reason})"
        except OSError as error:
            problem = f"cannot be read: {error.strerror}"
    mistakes.append(f"{path}:1: file: {problem}")
    return None


def _unreadable(path: Path) -> str | None:
    try:
        if path.is_dir():
            return "is a folder, not a file"
        if path.is_file():
            return None
        return "is not a regular file" if path.exists() else "is missing"
    except (OSError, ValueError) as error:  # e.g. a name that is too long, or holds a NUL
        return f"cannot be read: {error}"


def _not_text(found: re.Match[str]) -> str:
    return f"holds the control character U+{ord(found.group()):04X}"


def _check_nesting(text: str) -> None:
    """Refuse what nests too deep, before anything reads it recursively."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise _Refused(event.start_mark, f"nests deeper than {MAX_DEPTH} levels")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _check_expansion(root: yaml.Node) -> None:
    """Refuse aliases that hold themselves or expand to too much, and escaped control characters."""
    size: dict[int, tuple[int, int]] = {}  # node: (values in it, levels below it), expanded
    open_nodes: set[int] = set()

    def visit(node: yaml.Node, depth: int) -> tuple[int, int]:
        if id(node) in open_nodes:
            raise _Refused(node.start_mark, "holds itself by an alias")
        count, height = size.get(id(node), (1, 0))
        if depth + height > MAX_DEPTH:
            raise _Refused(node.start_mark, f"nests deeper than {MAX_DEPTH} levels by aliases")
        if id(node) in size:
            return count, height
        if isinstance(node, yaml.ScalarNode):
            found = NOT_TEXT.search(node.value)  # written as an escape
            if found:
                raise _Refused(node.start_mark, _not_text(found))
            if node.tag == INTEGER and len(node.value) > MAX_NUMBER_CHARACTERS:
                raise _Refused(node.start_mark, f"{_cut(node.value)!r} is too long a number")
        else:
            open_nodes.add(id(node))
            for child in _children(node):
                below, levels = visit(child, depth + 1)
                count, height = count + below, max(height, levels + 1)
                if count > MAX_VALUES:
                    problem = f"holds more than {MAX_VALUES} values, aliases expanded"
                    raise _Refused(node.start_mark, problem)
            open_nodes.remove(id(node))
        size[id(node)] = (count, height)
        return count, height

    visit(root, 0)


def _children(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield key
            yield value
    elif isinstance(node, yaml.SequenceNode):
        yield from node.value


def _repeated(root: yaml.Node) -> Iterator[tuple[int, str]]:
    """(line, key) of keys given twice in one mapping, which YAML itself lets pass."""
    visited: set[int] = set()
    pending = [root]
    while pending:
        node = pending.pop()
        if id(node) in visited:
            continue
        visited.add(id(node))
        if isinstance(node, yaml.MappingNode):
            seen: set[str] = set()
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode):
                    if key.value in seen:
                        yield key.start_mark.line + 1, key.value
                    seen.add(key.value)
        pending += _children(node)


def _construct(loader: Any, node: yaml.MappingNode) -> dict[Any, Any]:
    try:
        return dict(loader.construct_document(node))
    except FAILURES as error:
        found = _first_unusable(node)
        if found is None:
            raise _Refused(node.start_mark, f"holds an unusable value: {error}") from error
        kind = found.tag.rpartition(":")[2]
        raise _Refused(found.start_mark, f"{_cut(found.value)!r} is not a valid {kind}") from error


def _first_unusable(root: yaml.Node) -> yaml.ScalarNode | None:
    """The first scalar that has no value of its type."""
    loader = _Loader("")
    pending = [root]
    while pending:
        node = pending.pop()
        if isinstance(node, yaml.ScalarNode):
            try:
                loader.construct_object(node)
            except (yaml.YAMLError, *FAILURES):
                return node
        pending += reversed(list(_children(node)))
    return None


def _in_words(error: Any) -> str:
    """A pydantic error in words a YAML writer knows."""
    value = error.get("input")
    if error["type"] == "extra_forbidden":
        return "is not a known field"
    if error["type"] == "missing":
        return "is missing"
    if error["type"] == "too_short":
        return "is empty"
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == HIDDEN_INPUT:
        return message
    found = repr(value) if isinstance(value, str | int | float | bool | None) else ""
    return f"{message} (found {_cut(found)})" if found and found not in message else message


def _cut(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}…"
