"""Prompt templates: Jinja files in the packages' `templates/` folders, and their version."""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from hoi_assets.hashing import digest

if TYPE_CHECKING:
    import jinja2

PACKAGE = Path(__file__).parent.parent
FOLDERS = [PACKAGE / name / "templates" for name in ("llm", "ppv", "detailscribe", "evaluation")]
VERSION_DIGITS = 12


@cache
def _templates() -> "jinja2.Environment":
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDERS),
        undefined=jinja2.StrictUndefined,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(template: str, **values: Any) -> str:
    """The text of a template, e.g. `again.j2`; a value that is missing is an error."""
    return _templates().get_template(template).render(**values)


def retry_message(problem: str) -> str:
    """The message to the model about a reply that could not be used."""
    return render("again.j2", problem=problem)


def template_version(templates: Sequence[str], schema: Mapping[str, Any]) -> str:
    """Hash of the templates' texts and of the reply's schema: 12 hex digits."""
    texts = [_source(name) for name in templates]
    return digest([texts, schema])[:VERSION_DIGITS]


def _source(template: str) -> str:
    loader = _templates().loader
    assert loader is not None
    text, _, _ = loader.get_source(_templates(), template)
    return text


def as_json(schema: Mapping[str, Any]) -> str:
    """A schema as the templates show it."""
    return json.dumps(schema)


def validation_problem(error: ValidationError) -> str:
    """What is wrong with a reply, field by field, in words for the model to read."""
    return "; ".join(
        f"{'.'.join(str(part) for part in found['loc']) or 'reply'}: {found['msg']}"
        for found in error.errors(include_url=False, include_context=False)
    )
