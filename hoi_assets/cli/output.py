"""What commands print: results on stdout, all else on stderr."""

import json
import math
import sys
from collections.abc import Mapping
from datetime import date, datetime, time
from decimal import Decimal
from functools import partial
from typing import Any

log_to_stderr = partial(print, file=sys.stderr, flush=True)


def warn(message: str) -> None:
    """Print a line to stderr."""
    print(message, file=sys.stderr)


def print_json(data: Any) -> None:
    """Print `data` as JSON that any reader takes: numbers that are not finite become null.

    Example:
        >>> print_json({"mean": float("nan"), "n": 1})
        {
          "mean": null,
          "n": 1
        }
    """
    print(json.dumps(_jsonable(data), indent=2, allow_nan=False))


def _jsonable(value: Any) -> Any:
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else None
        case Decimal():
            return int(value) if value == value.to_integral_value() else float(value)
        case datetime() | date() | time():
            return value.isoformat()
        case bytes():
            return value.hex()
        case Mapping():
            return {str(key): _jsonable(item) for key, item in value.items()}
        case list() | tuple() | set():
            return [_jsonable(item) for item in value]
        case _:
            return str(value)
