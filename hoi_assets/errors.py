"""The error a user can meet: what was wrong, where, and what to do about it."""

from typing import Any


class HoiError(Exception):
    """A problem that a user can solve.

    Args:
        what: the thing, its place and its value.
        remedy: what to do next.
    """

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(f"{what}\n  {remedy}")
        self.what = what
        self.remedy = remedy

    def __reduce__(self) -> tuple[Any, ...]:
        # By default `__init__` is called with the message alone, which no subclass takes.
        return _unpickled, (type(self), self.args, self.__dict__)


def _unpickled(kind: type[HoiError], args: tuple[Any, ...], state: dict[str, Any]) -> HoiError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error
