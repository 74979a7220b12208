"""YAML files whose mistakes are named by file, line and field."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

# libyaml is ten times faster; PyYAML is sometimes built without it.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

Location = tuple[str | int, ...]
Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True)
class YamlFile:
    """One YAML mapping with its node tree, which knows the line of each field."""

    path: Path
    node: yaml.Node
    data: dict[str, Any]

    @staticmethod
    def read(path: Path, mistakes: list[str]) -> "YamlFile | None":
        """Read one file; None after adding to `mistakes` where there is no usable mapping."""
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            mistakes.append(f"{path}:1: file: is missing")
            return None
        except UnicodeDecodeError as error:
            mistakes.append(f"{path}:1: file: is not UTF-8 text ({error.reason})")
            return None
        try:
            loader = _Loader(text)
            node = loader.get_single_node()
            if node is None:
                mistakes.append(f"{path}:1: file: is empty")
                return None
            if not isinstance(node, yaml.MappingNode):
                mistakes.append(f"{path}:1: file: must hold `field: value` lines")
                return None
            repeated = [f"{path}:{line}: {key}: is given twice" for line, key in _repeated(node)]
            mistakes += repeated
            data = loader.construct_document(node)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            line = mark.line + 1 if mark else 1
            problem = getattr(error, "problem", None) or " ".join(str(error).split())
            mistakes.append(f"{path}:{line}: file: is not valid YAML: {problem}")
            return None
        return None if repeated else YamlFile(path, node, data)

    def parse(self, model: type[Model], mistakes: list[str]) -> Model | None:
        """Validate as `model`; None after adding each field's mistake to `mistakes`."""
        try:
            return model.model_validate(self.data)
        except ValidationError as error:
            mistakes += [
                self.mistake(found["loc"], _plain(found))
                for found in error.errors(include_url=False, include_context=False)
            ]
            return None

    def mistake(self, location: Location, message: str) -> str:
        """`file:line: field: message`."""
        field = ".".join(str(part) for part in location) or "file"
        return f"{self.path}:{self.line(location)}: {field}: {message}"

    def line(self, location: Location) -> int:
        """Line, from 1, of the field at `location`, or of the nearest part of it that exists."""
        node, line = self.node, self.node.start_mark.line + 1
        for part in location:
            if isinstance(node, yaml.MappingNode):
                pairs = [pair for pair in node.value if pair[0].value == str(part)]
                if not pairs:
                    break
                key, node = pairs[0]
                line = key.start_mark.line + 1
            elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
                if part >= len(node.value):
                    break
                node = node.value[part]
                line = node.start_mark.line + 1
        return line


def _repeated(node: yaml.Node) -> Iterator[tuple[int, str]]:
    """(line, key) of keys given twice in one mapping, which YAML itself lets pass."""
    children: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if str(key.value) in seen:
                yield key.start_mark.line + 1, str(key.value)
            seen.add(str(key.value))
            children.append(value)
    elif isinstance(node, yaml.SequenceNode):
        children = node.value
    for child in children:
        yield from _repeated(child)


def _plain(error: Any) -> str:
    """A pydantic error in words a YAML writer knows."""
    value = error.get("input")
    if error["type"] == "extra_forbidden":
        return "is not a known field"
    if error["type"] == "missing":
        return "is missing"
    if error["type"] == "too_short":
        return "is empty"
    message = str(error["msg"]).removeprefix("Value error, ")
    told = repr(value) if isinstance(value, str | int | float | bool | None) else ""
    return f"{message} (found {told})" if told and told not in message else message
