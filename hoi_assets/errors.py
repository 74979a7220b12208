"""The error a user can meet: what was wrong, where, and what to do about it."""


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
