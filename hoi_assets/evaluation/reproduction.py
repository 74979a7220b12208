"""The reproduction record of scores: versions, hardware, hashes, and three reference pictures whose
scores by the stored weights are known and computed again on each run.

    python -m hoi_assets.evaluation.reproduction

writes the expected scores of the profile's weights; run it whenever the stored weights change.
"""

import json
import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hoi_assets.engines.cached_scores import SCORING_VERSION
from hoi_assets.errors import HoiError
from hoi_assets.evaluation.component_judges import component_judges
from hoi_assets.evaluation.run_metrics import judges
from hoi_assets.hashing import digest_pixels
from hoi_assets.settings import ROOT, ModelRef, Settings, digested, load_settings, resolve_path
from hoi_assets.store.weights import model_digest

if TYPE_CHECKING:
    from PIL import Image

REFERENCE_FILE = ROOT / "data" / "reference_scores.json"
LIBRARIES = (
    *("hoi-assets", "torch", "transformers", "tokenizers", "safetensors", "numpy", "scipy"),
    *("pillow", "polars"),
)
# Largest differences allowed: on the kind of machine that the expectations are from, where bits are
# equal but for the place in memory, and on any other, whose kernels round differently.
SAME_KIND_TOLERANCE = 1e-6
OTHER_KIND_TOLERANCE = 1e-3

Standing = Literal["as expected", "differs", "no expectation"]


@dataclass(frozen=True)
class CheckedMetric:
    """One metric of the reference pictures, compared with the expectation.

    Attributes:
        found: a value per picture; None where the metric does not apply.
        expected: None where these weights have none.
        largest_difference: None without an expectation, or where a value is missing.
    """

    metric: str
    model: str
    found: tuple[float | None, ...]
    expected: tuple[float | None, ...] | None
    largest_difference: float | None
    tolerance: float
    standing: Standing


def libraries() -> dict[str, str | None]:
    """Versions of the libraries that compute scores; None where one is not installed."""
    return {"python": platform.python_version()} | {name: _version(name) for name in LIBRARIES}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def hardware(device: str) -> dict[str, Any]:
    """The hardware and threads that a score's last bits depend on.

    Args:
        device: cpu or cuda.
    """
    import torch

    return {
        "device": device,
        "gpu": torch.cuda.get_device_name() if device == "cuda" else None,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "machine": platform.machine(),
        "system": platform.system(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }


def models(settings: Settings) -> dict[str, dict[str, Any]]:
    """The judges' weights by metric: source, revision, dtype, and the digest of what they name."""
    refs = {judge.name: judge.ref for judge in judges(settings) if _judges_any(judge.reads)}
    refs |= {name: ref for name, ref, _ in component_judges(settings)}
    return {
        name: {**digested(ref), "digest": model_digest(ref)} for name, ref in sorted(refs.items())
    }


def _judges_any(reads: tuple[str, ...]) -> bool:
    """Whether a picture can be judged by its prompt alone."""
    return set(reads) <= {"prompt", "phrases"}


def check_reference(settings: Settings) -> tuple[list[CheckedMetric], str | None]:
    """Score the reference pictures, without the cache, and compare with REFERENCE_FILE.

    Returns:
        One per metric, and what is wrong with the pictures themselves (None: nothing). Where they
        cannot be read, no metric.
    """
    try:
        kept = read_reference()
        pictures = kept["pictures"]
        images = [_open(one) for one in pictures]
    except HoiError as error:
        return [], error.what
    wrong = [
        one["scene_id"]
        for one, image in zip(pictures, images, strict=True)
        if digest_pixels(image) != one["pixels"]
    ]
    same = _kind(settings) == kept["made_on"]
    tolerance = SAME_KIND_TOLERANCE if same else OTHER_KIND_TOLERANCE
    found = [
        _checked(metric, model_digest(ref), values, kept["expected"].get(metric), tolerance)
        for metric, (ref, values) in _score(settings, images, pictures).items()
    ]
    return found, f"other pixels: {', '.join(wrong)}" if wrong else None


def read_reference() -> dict[str, Any]:
    """The reference pictures and expected scores.

    Raises:
        HoiError: REFERENCE_FILE is missing, or cannot be read.
    """
    try:
        kept: dict[str, Any] = json.loads(REFERENCE_FILE.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise HoiError(
            f"{REFERENCE_FILE} cannot be read: {error}", "restore it: git checkout -- data"
        ) from error
    return kept


def _open(picture: Mapping[str, Any]) -> "Image.Image":
    from hoi_assets.store.scene_pool import open_image

    return open_image(resolve_path("data/pool"), dict(picture))


def _checked(
    metric: str,
    model: str,
    found: tuple[float | None, ...],
    kept: Mapping[str, Any] | None,
    tolerance: float,
) -> CheckedMetric:
    if kept is None or kept["model"] != model:
        return CheckedMetric(metric, model, found, None, None, tolerance, "no expectation")
    expected = tuple(kept["values"])
    pairs = [
        (a, b) for a, b in zip(found, expected, strict=True) if a is not None and b is not None
    ]
    both = (
        len(pairs)
        == sum(one is not None for one in expected)
        == sum(one is not None for one in found)
    )
    largest = max((abs(a - b) for a, b in pairs), default=0.0) if both else None
    fine = largest is not None and largest <= tolerance
    return CheckedMetric(
        metric, model, found, expected, largest, tolerance, "as expected" if fine else "differs"
    )


def _score(
    settings: Settings, images: list["Image.Image"], rows: list[dict[str, Any]]
) -> dict[str, tuple[ModelRef, tuple[float | None, ...]]]:
    """By metric the weights and a value per picture; of components the mean probability of yes
    (`<metric>_p_yes`), a finer measure than the share of satisfied components."""
    places = range(len(rows))
    found = {
        judge.name: (judge.ref, tuple(v[judge.name] for v in judge.score(images, rows, places)))
        for judge in judges(settings)
        if _judges_any(judge.reads)
    }
    for name, ref, _ in component_judges(settings):
        found[f"{name}_p_yes"] = (ref, _p_yes(ref, settings.device, images, rows))
    return found


def _p_yes(
    ref: ModelRef, device: str, images: list["Image.Image"], rows: list[dict[str, Any]]
) -> tuple[float | None, ...]:
    from hoi_assets.engines.blip_vqa import flatten_pairs
    from hoi_assets.engines.vilt.vqa import answers, load_vqa

    owners, places, questions = flatten_pairs([row["questions"] for row in rows])
    pictures = [images[owner] for owner in owners]
    p_yes = answers(load_vqa(ref, device), pictures, questions, places)
    means: list[float | None] = []
    for number in range(len(rows)):
        own = [p for p, owner in zip(p_yes, owners, strict=True) if owner == number]
        means.append(sum(own) / len(own) if own else None)
    return tuple(means)


def _kind(settings: Settings) -> dict[str, Any]:
    """The kind of machine and software whose bits are alike."""
    from hoi_assets.engines.device import resolve_device

    facts = hardware(resolve_device(settings.device))
    names = ("device", "gpu", "cpu_capability", "machine")
    return {name: facts[name] for name in names} | {"torch": version("torch")}


def _standing(checked: list[CheckedMetric], problem: str | None) -> Standing:
    standings = {one.standing for one in checked}
    if problem is not None or "differs" in standings:
        return "differs"
    return "as expected" if "as expected" in standings else "no expectation"


def complaints(checked: list[CheckedMetric], problem: str | None) -> list[str]:
    """What is not as expected, a line each; empty where all is. See `check_reference`."""
    lines = [] if problem is None else [f"reference pictures: {problem}"]
    for one in checked:
        if one.standing == "differs":
            by = (
                "a value is missing"
                if one.largest_difference is None
                else f"by {one.largest_difference:.3g}, at most {one.tolerance:g} is allowed"
            )
            lines.append(f"{one.metric} of the reference pictures differs: {by}")
    return lines


def record(settings: Settings, **facts: Any) -> tuple[dict[str, Any], list[str]]:
    """The reproduction record, and what in it is not as expected.

    Args:
        facts: further entries, e.g. hashes of inputs; JSON-able.
    """
    from hoi_assets.engines.device import resolve_device

    checked, problem = check_reference(settings)
    kept = {
        "scoring_version": SCORING_VERSION,
        "profile": settings.profile,
        "libraries": libraries(),
        "hardware": hardware(resolve_device(settings.device)),
        "models": models(settings),
        "reference_pictures": {
            "standing": _standing(checked, problem),
            "problem": problem,
            "metrics": [asdict(one) for one in checked],
        },
        **facts,
    }
    return kept, complaints(checked, problem)


def write_expectations(settings: Settings) -> Path:
    """Score the reference pictures with the profile's weights and store that as the expectation."""
    kept = read_reference()
    images = [_open(one) for one in kept["pictures"]]
    for one, image in zip(kept["pictures"], images, strict=True):
        one["pixels"] = digest_pixels(image)
    found = _score(settings, images, kept["pictures"])
    expected = {
        metric: {"model": model_digest(ref), "values": list(values)}
        for metric, (ref, values) in sorted(found.items())
    }
    kept |= {"made_on": _kind(settings), "expected": expected}
    text = json.dumps(kept, indent=2, ensure_ascii=False, allow_nan=False)
    REFERENCE_FILE.write_text(text + "\n", encoding="utf-8")
    return REFERENCE_FILE


def main() -> int:
    """Write the expected scores of the profile in force."""
    try:
        print(write_expectations(load_settings()).relative_to(ROOT))
    except HoiError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
