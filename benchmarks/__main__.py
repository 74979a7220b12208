"""`python -m benchmarks [name ...]`: run the measurements, one line each."""

import sys
from importlib import import_module

NAMES = ("definitions", "orchestration", "incremental", "resume", "examiner", "scenes", "refine")


def main() -> None:
    for name in sys.argv[1:] or NAMES:
        if name not in NAMES:
            raise SystemExit(f"no benchmark {name!r}; name one of: {', '.join(NAMES)}")
        import_module(f"benchmarks.{name}").main()


if __name__ == "__main__":
    main()
