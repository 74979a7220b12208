"""Writes `docs/configuration.md` from the settings' schema.

python -m hoi_assets.settings.documentation
"""

import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from hoi_assets.settings.base import ModelRef, Section
from hoi_assets.settings.locations import ROOT
from hoi_assets.settings.profile import FORMER_NAMES, Settings, load_settings

FILE = ROOT / "docs" / "configuration.md"
COMMAND = "python -m hoi_assets.settings.documentation"
SHIPPED = ("tiny", "full")
HEAD = f"""\
<!-- Written by `{COMMAND}`; do not edit. -->

# Configuration

A profile is a YAML file. `--profile` of `hoi`, or the environment variable `HOI_PROFILE`, takes the
name of a shipped profile (`tiny`, the default, or `full`) or the path of a `.yaml` file of your
own. A field that is left out has its default; an unknown field is refused with its line.

The columns *tiny* and *full* show what these profiles set; an empty cell is the default. "null" is
YAML's word for nothing set.

## Where files are looked for

Paths are absolute, or begin with `~`, or are relative. A relative path is the first of these that
exists:

1. for `data/...`, below the folder that the environment variable `HOI_DATA` names (it stands for
   `data`);
2. in the checkout; where hoi-assets is installed from a wheel, in the data that came in it
   (profiles, taxonomy, built-in benchmark);
3. in the working folder.

The tiny weights (`data/models/tiny`) and the pool of scenes (`data/pool`) do not travel in the
wheel: set `HOI_DATA` to a folder that holds `models/tiny` and `pool`, such as the `data/` of a
checkout.

Outputs go to the folder that `HOI_HOME` names: by default `data/out` of the checkout, or `hoi-data`
in the working folder where there is no checkout; or to a bucket, see
[object-storage.md](object-storage.md).

| environment variable | meaning | default |
| --- | --- | --- |
| `HOI_PROFILE` | profile: name, or path of a YAML file | `tiny` |
| `HOI_HOME` | folder or `s3://` URL of outputs | `data/out` of the checkout, else `./hoi-data` |
| `HOI_CACHE` | folder of this machine's copies of a home in a bucket | `~/.cache/hoi-assets` |
| `HOI_CACHE_GB` | size of these copies; the least recently used go | 50 |
| `HOI_DATA` | folder with `models/tiny` and `pool` | `data` of the checkout |
| `HOI_MODELS` | folder of downloaded models | `models/full` of `HOI_DATA` |
| `HOI_EXECUTOR` | where work is computed: `in_process`, or `ray` (docs/ray.md) | `in_process` |
| `RAY_ADDRESS` | the Ray cluster of `HOI_EXECUTOR=ray` | none |
| `HOI_LEDGER_URL` | Postgres database that holds the ledger and the replies, e.g. \
`postgresql://user:password@host/database` | `ledger.sqlite` of the home |
| `HOI_DAGSTER_URL` | Postgres database of Dagster's runs, events and schedules, e.g. \
`postgresql+psycopg2://user:password@host/database` | files of the home |
| `HOI_API_KEY` | key of the endpoints, unless `api_key_env` names another variable | none |
"""


def as_markdown() -> str:
    """The whole page: every section, field, type, range, default and description."""
    profiles = {name: load_settings(name).model_dump(mode="json") for name in SHIPPED}
    schema = Settings.model_json_schema()
    lines = [HEAD.rstrip(), "", "## Top level", ""]
    own = {k: f for k, f in Settings.model_fields.items() if not _section(f)}
    lines += _table(own, schema, schema, profiles)
    for name, field in Settings.model_fields.items():
        section = _section(field)
        if section is None:
            continue
        left_out = {
            key: None if own.is_required() else _plain(own.get_default())
            for key, own in section.model_fields.items()
        }
        dumped = {profile: values[name] or left_out for profile, values in profiles.items()}
        lines += ["", f"## `{name}`", "", *_paragraph(section)]
        if name in FORMER_NAMES:
            lines += [f"Was called `{FORMER_NAMES[name]}` in release 0.1.", ""]
        described = schema["$defs"][section.__name__]
        lines += _table(section.model_fields, described, schema, dumped)
        if name == "models":
            lines += ["", "Each model is a mapping:", ""]
            described = schema["$defs"][ModelRef.__name__]
            lines += _table(ModelRef.model_fields, described, schema, {})
    return "\n".join(lines) + "\n"


def write(path: Path = FILE) -> None:
    """Write the page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(as_markdown(), encoding="utf-8")


def _section(field: FieldInfo) -> type[BaseModel] | None:
    """The section that a field holds, or may hold."""
    for kind in (field.annotation, *get_args(field.annotation)):
        if inspect.isclass(kind) and issubclass(kind, Section):
            return kind
    return None


def _paragraph(section: type[BaseModel]) -> list[str]:
    text = inspect.getdoc(section) or ""
    return [*text.splitlines(), ""]


def _table(
    fields: dict[str, FieldInfo],
    described: dict[str, Any],
    schema: dict[str, Any],
    profiles: dict[str, dict[str, Any]],
) -> list[str]:
    columns = ["field", "type and range", "default", *profiles, "meaning"]
    rows = [columns, ["---"] * len(columns)]
    for name, field in fields.items():
        default = None if field.is_required() else field.get_default()
        shown = "required" if field.is_required() else _value(default)
        given = [_value(p[name]) if p[name] != _plain(default) else "" for p in profiles.values()]
        kind = _kind(described["properties"][name], schema)
        rows.append([f"`{name}`", kind, shown, *given, field.description or ""])
    return [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]


def _kind(field: dict[str, Any], schema: dict[str, Any]) -> str:
    """A field's type and range in words, e.g. "integer, 1 to 10, or null"."""
    if "anyOf" in field:
        return ", or ".join(_kind(option, schema) for option in field["anyOf"])
    if "$ref" in field:
        return "model"
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if field["type"] == "array":
        return f"list of {_kind(field['items'], schema)}"
    names = {"string": "text", "boolean": "true or false", "number": "number"}
    words = [names.get(field["type"], field["type"]), *_range(field)]
    return ", ".join(words)


def _range(field: dict[str, Any]) -> Iterator[str]:
    low = [("minimum", "at least {}"), ("exclusiveMinimum", "over {}")]
    high = [("maximum", "at most {}"), ("exclusiveMaximum", "under {}")]
    if "minimum" in field and "maximum" in field:
        yield f"{field['minimum']:g} to {field['maximum']:g}"
    else:
        for key, words in (*low, *high):
            if key in field:
                yield words.format(f"{field[key]:g}")
    if "multipleOf" in field:
        yield f"a multiple of {field['multipleOf']}"
    if "pattern" in field:
        yield f"matching `{field['pattern']}`"


def _plain(value: Any) -> Any:
    """The value as JSON reads it."""
    return json.loads(json.dumps(value, default=lambda model: model.model_dump(mode="json")))


def _value(value: Any) -> str:
    value = _plain(value)
    if isinstance(value, dict):  # a model: its defaults say nothing
        fields = ModelRef.model_fields
        value = {k: v for k, v in value.items() if k not in fields or v != fields[k].get_default()}
        return "<br>".join(f"{k}: `{v}`" for k, v in value.items())
    return f"`{json.dumps(value) if not isinstance(value, str) or not value else value}`"


if __name__ == "__main__":
    write()
    print(f"wrote {FILE}")
