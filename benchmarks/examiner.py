"""The examiner against the eye, on generated pictures that were labelled by hand."""

from benchmarks.common import report
from hoi_assets.engines.examiner import load_examiner
from hoi_assets.tinyworld.weights.manual_labels import agreement
from hoi_assets.tinyworld.weights.store import WEIGHTS


def main() -> None:
    for kind, found in agreement(load_examiner(WEIGHTS / "examiner")).items():
        share, kappa = found.share, found.kappa
        if share.n:
            chance = "none" if kappa is None else f"{kappa:.2f}"
            figure = f"{share.value:.2f} ({share.low:.2f} to {share.high:.2f}), n {share.n}"
            report(f"examiner agrees with the eye on {kind}", f"{figure}, kappa {chance}", "0.8")


if __name__ == "__main__":
    main()
