"""Guards `code_version`: what determines a stage's output must not change while it stays.

`hoi_assets_tests/code_versions.yaml` holds per stage its `code_version` and the digest of its
recipe: the files it names, the module that defines it, and the schema of the settings it reads.
Python is compared by its syntax tree without docstrings, so comments and layout do not count.
"""

import ast
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from hoi_assets.errors import HoiError
from hoi_assets.hashing import digest, files_below
from hoi_assets.publishing.stage import Stage
from hoi_assets.settings import ROOT, Settings

LOCK_FILE = ROOT / "hoi_assets_tests" / "code_versions.yaml"
HEAD = "# Written by `hoi lock-code-versions`; see hoi_assets/publishing/code_versions.py.\n"

Lock = dict[str, dict[str, str]]


def recipe_digest(stage: Stage, root: Path = ROOT) -> str:
    """Hash of all that should make one raise the stage's `code_version`: 16 hex digits.

    Raises:
        HoiError: the recipe names a file that is not there.
    """
    files: dict[str, str] = {}
    for name in stage.recipe:
        path = root / name
        if not path.exists():
            raise HoiError(
                f"recipe of {stage.name} names {name}, which is not in {root}",
                "mend recipe= of the stage",
            )
        found = [(name, path)] if path.is_file() else files_below(path)
        for inner, file in found:
            if "__pycache__" not in file.parts:
                files[name if path.is_file() else f"{name}/{inner}"] = _file(file)
    schemas = {name: _schema(name) for name in stage.settings}
    return digest([files, _file(stage.module_file), schemas])[:16]


def differences(stages: Iterable[Stage], lock: Mapping[str, Mapping[str, str]]) -> list[str]:
    """One line per stage whose recipe and `code_version` disagree with the lock; empty is well."""
    lines = []
    by_name = {stage.name: stage for stage in stages}
    for name, stage in by_name.items():
        kept = lock.get(name)
        if kept is None:
            lines.append(f"{name}: not locked yet: run `hoi lock-code-versions`")
        elif kept["recipe"] != recipe_digest(stage) and kept["code_version"] == stage.code_version:
            lines.append(
                f"{name}: its recipe changed and code_version is still {stage.code_version!r}: "
                "raise code_version and run `hoi lock-code-versions`; where the same inputs still "
                f"give the same output, run `hoi lock-code-versions --same-output {name}`"
            )
        elif kept != _entry(stage):
            lines.append(f"{name}: code_version or recipe is newer: run `hoi lock-code-versions`")
    lines += [
        f"{name}: no such stage: run `hoi lock-code-versions`" for name in lock.keys() - by_name
    ]
    return lines


def read_lock(path: Path = LOCK_FILE) -> Lock:
    """The locked recipes; empty where there is no file."""
    return yaml.safe_load(path.read_text(encoding="utf-8")) or {} if path.is_file() else {}


def write_lock(
    stages: Sequence[Stage], same_output: Sequence[str] = (), path: Path = LOCK_FILE
) -> Lock:
    """Write the lock anew.

    Args:
        same_output: stages whose recipe changed without changing what they make.

    Raises:
        HoiError: another stage's recipe changed and its `code_version` did not.
    """
    lock = read_lock(path)
    unraised = [
        stage.name
        for stage in stages
        if stage.name in lock
        and stage.name not in same_output
        and lock[stage.name]["recipe"] != recipe_digest(stage)
        and lock[stage.name]["code_version"] == stage.code_version
    ]
    if unraised:
        raise HoiError(
            f"the recipe of {', '.join(unraised)} changed and code_version did not",
            "raise code_version; or, where the same inputs still give the same output, add "
            f"--same-output {' '.join(unraised)}",
        )
    new = {stage.name: _entry(stage) for stage in stages}
    path.write_text(HEAD + yaml.safe_dump(new, sort_keys=True), encoding="utf-8")
    return new


def _entry(stage: Stage) -> dict[str, str]:
    return {"code_version": stage.code_version, "recipe": recipe_digest(stage)}


def _file(path: Path) -> str:
    if path.suffix == ".py":
        return digest(_tree(ast.parse(path.read_text(encoding="utf-8"), filename=str(path))))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _tree(node: Any) -> Any:
    """Syntax as JSON, alike on all Python versions: empty fields, which differ, are left out."""
    if isinstance(node, list):
        return [_tree(item) for item in node]
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = {}
    for name, value in ast.iter_fields(node):
        if name == "body" and _has_docstring(node):
            value = value[1:]
        if value is not None and value != [] and name not in ("ctx", "kind", "type_comment"):
            fields[name] = _tree(value)
    return [type(node).__name__, fields]


def _has_docstring(node: ast.AST) -> bool:
    """Whether a module, class or function begins with a docstring."""
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    return isinstance(node, kinds) and ast.get_docstring(node, clean=False) is not None


def _schema(name: str) -> Any:
    """Fields of a settings section with their types and bounds, without words about them."""
    if name not in Settings.model_fields:
        raise HoiError(f"no settings section {name!r}", "mend settings= of the stage")
    whole = Settings.model_json_schema()
    return [_bare(whole["properties"][name]), _bare(whole.get("$defs", {}).get(_title(name), {}))]


def _title(name: str) -> str:
    kind = Settings.model_fields[name].annotation
    return getattr(kind, "__name__", "")


def _bare(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {k: _bare(v) for k, v in schema.items() if k not in ("description", "title")}
    return [_bare(item) for item in schema] if isinstance(schema, list) else schema
