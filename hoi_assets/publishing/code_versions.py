"""Guards `code_version`: what determines an asset's output must not change while it stays.

`hoi_assets_tests/code_versions.yaml` holds per asset its `code_version` and the digest of its
recipe, which is computed: the asset's function with the helpers it names, every module of this
project that they import at any depth, the templates that those name, and the schema of the settings
that the asset reads. Python is compared by its syntax tree without docstrings, so comments and
layout do not count. Modules that move data without shaping it are left out (`NOT_IN_RECIPES`).
"""

import ast
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from hoi_assets.errors import HoiError
from hoi_assets.hashing import digest
from hoi_assets.publishing.stage import Stage
from hoi_assets.settings import ROOT, Settings

LOCK_FILE = ROOT / "hoi_assets_tests" / "code_versions.yaml"
HEAD = "# Written by `hoi lock-code-versions`; see hoi_assets/publishing/code_versions.py.\n"
PACKAGE = "hoi_assets"
TEMPLATE_SUFFIXES = (".j2", ".sql")
NOT_IN_RECIPES = tuple(
    f"{PACKAGE}.{name}"
    for name in ("cli", "definitions", "defs", "errors", "progress", "publishing", "settings",
                 "store")
)  # fmt: skip
# What an asset's function itself imports of these only illustrates its metadata.
ILLUSTRATIONS = f"{PACKAGE}.pictures"

Lock = dict[str, dict[str, str]]


def recipe_digest(stage: Stage, root: Path = ROOT) -> str:
    """Hash of all that should make one raise the asset's `code_version`: 16 hex digits."""
    source = Path(stage.function.__code__.co_filename)
    nodes, modules = _own(source, stage.function.__name__)
    files = {name: _file(path) for name, path in _closure(modules, root)}
    schemas = {name: _schema(name) for name in stage.settings}
    return digest([nodes, files, schemas])[:16]


def recipe_files(stage: Stage, root: Path = ROOT) -> tuple[str, ...]:
    """Modules and templates that the asset's recipe holds, beside its own function."""
    _, modules = _own(Path(stage.function.__code__.co_filename), stage.function.__name__)
    return tuple(name for name, _ in _closure(modules, root))


def differences(
    stages: Iterable[Stage], lock: Mapping[str, Mapping[str, str]], root: Path = ROOT
) -> list[str]:
    """One line per asset whose recipe and `code_version` disagree with the lock; else empty."""
    lines = []
    by_name = {stage.name: stage for stage in stages}
    for name, stage in by_name.items():
        locked = lock.get(name)
        if locked is None:
            lines.append(f"{name}: not locked yet: run `hoi lock-code-versions`")
        elif _unraised(stage, locked, root):
            lines.append(
                f"{name}: its recipe changed and code_version is still {stage.code_version!r}: "
                "raise code_version and run `hoi lock-code-versions`; where the same inputs still "
                f"give the same output, run `hoi lock-code-versions --same-output {name}`"
            )
        elif locked != _entry(stage, root):
            lines.append(f"{name}: code_version or recipe is newer: run `hoi lock-code-versions`")
    lines += [
        f"{name}: no such asset: run `hoi lock-code-versions`" for name in lock.keys() - by_name
    ]
    return lines


def read_lock(path: Path = LOCK_FILE) -> Lock:
    """The locked recipes; empty where there is no file."""
    return yaml.safe_load(path.read_text(encoding="utf-8")) or {} if path.is_file() else {}


def write_lock(
    stages: Sequence[Stage],
    same_output: Sequence[str] = (),
    path: Path = LOCK_FILE,
    root: Path = ROOT,
) -> Lock:
    """Write the lock anew.

    Args:
        same_output: assets whose recipe changed without changing their output.

    Raises:
        HoiError: another asset's recipe changed and its `code_version` did not; or there is no
            checkout to lock them in.
    """
    if not path.parent.is_dir():
        raise HoiError(
            f"code versions are locked in a checkout, and there is no folder {path.parent}",
            "run this in a checkout, installed with `pip install --editable .`",
        )
    lock = read_lock(path)
    unraised = [
        stage.name
        for stage in stages
        if stage.name in lock
        and stage.name not in same_output
        and _unraised(stage, lock[stage.name], root)
    ]
    if unraised:
        raise HoiError(
            f"the recipe of {', '.join(unraised)} changed and code_version did not",
            "raise code_version; or, where the same inputs still give the same output, add "
            f"--same-output {' '.join(unraised)}",
        )
    new = {stage.name: _entry(stage, root) for stage in stages}
    path.write_text(HEAD + yaml.safe_dump(new, sort_keys=True), encoding="utf-8")
    return new


def _entry(stage: Stage, root: Path) -> dict[str, str]:
    return {"code_version": stage.code_version, "recipe": recipe_digest(stage, root)}


def _unraised(stage: Stage, locked: Mapping[str, str], root: Path) -> bool:
    same_version = locked["code_version"] == stage.code_version
    return same_version and locked["recipe"] != recipe_digest(stage, root)


# --- the import closure ------------------------------------------------------------------------


def _own(source: Path, function: str) -> tuple[list[Any], set[str]]:
    """The function's syntax with that of the helpers it names in its module, and what it imports.

    Returns:
        (syntax trees, modules of this project)
    """
    tree = _parsed(source)
    defined: dict[str, ast.AST] = {name: node for node in tree.body for name in _names(node)}
    imported = {
        alias.asname or alias.name: (node.module, alias.name)
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }
    nodes: dict[str, ast.AST] = {}
    modules: set[str] = set()
    pending = [function]
    while pending:
        name = pending.pop()
        if name in nodes:
            continue
        if name in imported:
            modules |= set(_modules(*imported[name]))
        if name not in defined:
            continue
        node = defined[name]
        nodes[name] = node
        for inner in (found for part in _statements(node) for found in ast.walk(part)):
            if isinstance(inner, ast.Name):
                pending.append(inner.id)
            elif isinstance(inner, ast.ImportFrom) and inner.module:
                for alias in inner.names:
                    modules |= set(_modules(inner.module, alias.name))
    modules.discard(ILLUSTRATIONS)
    trees = []
    for name in sorted(nodes):
        trees.append([name, _tree(_statements(nodes[name]))])
    return trees, modules


def _statements(node: ast.AST) -> list[Any]:
    """A function's body without its docstring; any other statement as it is."""
    if not isinstance(node, ast.FunctionDef):
        return [node]
    return node.body[1:] if _has_docstring(node) else node.body


def _names(node: ast.AST) -> Iterator[str]:
    """Names that a statement defines."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        yield node.name
    elif isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        yield from (target.id for target in targets if isinstance(target, ast.Name))


def _closure(modules: Iterable[str], root: Path) -> list[tuple[str, Path]]:
    """The modules with all that they import at any depth, and the templates that they name."""
    found: dict[str, Path] = {}
    templates: dict[str, Path] = {}
    pending = sorted(modules)
    while pending:
        name = pending.pop()
        path = _path(name, root)
        if name in found or path is None or name.startswith(NOT_IN_RECIPES):
            continue
        found[name] = path
        imports, named = _references(path)
        pending += imports
        for template in named:
            for place in sorted((root / PACKAGE).glob(f"*/templates/{template}")):
                templates[place.relative_to(root).as_posix()] = place
    return sorted(found.items()) + sorted(templates.items())


@lru_cache(maxsize=512)
def _references(path: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Modules of this project that a file imports anywhere, and templates that it names."""
    imports: set[str] = set()
    templates: set[str] = set()
    pending: list[ast.AST] = [_parsed(path)]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                imports |= set(_modules(node.module, alias.name))
        elif isinstance(node, ast.Constant) and str(node.value).endswith(TEMPLATE_SUFFIXES):
            templates.add(str(node.value))
        pending += ast.iter_child_nodes(node)
    return tuple(sorted(imports)), tuple(sorted(templates))


def _modules(module: str, name: str) -> Iterator[str]:
    """Modules that `from module import name` may mean."""
    if module == PACKAGE or module.startswith(f"{PACKAGE}."):
        yield module
        yield f"{module}.{name}"


def _path(module: str, root: Path) -> Path | None:
    path = root.joinpath(*module.split("."))
    candidates = (path.with_suffix(".py"), path / "__init__.py")
    return next((candidate for candidate in candidates if candidate.is_file()), None)


# --- digests -----------------------------------------------------------------------------------


@lru_cache(maxsize=512)
def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


@lru_cache(maxsize=512)
def _file(path: Path) -> str:
    if path.suffix == ".py":
        return digest(_tree(_parsed(path)))
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
    """Fields of a settings section with their types and bounds, without descriptions."""
    if name not in Settings.model_fields:
        raise HoiError(f"no settings section {name!r}", "correct settings= of the asset")
    whole = Settings.model_json_schema()
    return [_bare(whole["properties"][name]), _bare(whole.get("$defs", {}).get(_title(name), {}))]


def _title(name: str) -> str:
    kind = Settings.model_fields[name].annotation
    return getattr(kind, "__name__", "")


def _bare(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {k: _bare(v) for k, v in schema.items() if k not in ("description", "title")}
    return [_bare(item) for item in schema] if isinstance(schema, list) else schema
