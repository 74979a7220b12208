"""What planned work costs on this machine: disk, hours, money. Unknown is null, never guessed."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hoi_assets.preflight.calls import Calls, total_usd
from hoi_assets.preflight.picture_bytes import PictureBytes, measure_picture_bytes
from hoi_assets.preflight.plan import plan_work
from hoi_assets.preflight.speed import Speeds, read_speeds
from hoi_assets.preflight.work import BASE, BENCHMARK, EDITOR, PROPOSER, REPAIR, Work
from hoi_assets.settings import Settings
from hoi_assets.store.images import FORMATS
from hoi_assets.taxonomy import Taxonomy

SECONDS_PER_HOUR = 3600
BYTES_PER_GB = 1e9


@dataclass(frozen=True)
class AssetCost:
    """One asset over all partitions, at most; null is unknown.

    Attributes:
        gb: of its pictures, by format.
        hours: of drawing and training; scoring is not counted.
        calls: to endpoints; usd their price, 0 where there are none.
    """

    asset: str
    partitions: int
    pictures: int
    denoiser_evaluations: int
    training_steps: int
    gb: dict[str, float | None]
    hours: float | None
    calls: int
    input_tokens: int
    output_tokens: int
    usd: float | None


@dataclass(frozen=True)
class Plan:
    """What a run from an empty home costs, at most.

    Attributes:
        categories, scenarios: what is run.
        assets: in order of the pipelines; `total` is their sum.
        calls: summed by section of the settings.
        picture_format: that the profile sets.
        bytes_per_picture: measured, by entry of the model; null where nothing could be measured.
        speeds: measured on this machine.
        candidates: the most candidates per category, and what that limit comes from.
    """

    categories: tuple[str, ...]
    scenarios: tuple[str, ...]
    assets: tuple[AssetCost, ...]
    total: AssetCost
    calls: tuple[Calls, ...]
    picture_format: str
    bytes_per_picture: dict[str, PictureBytes | None]
    speeds: Speeds
    candidates: str | None


def make_plan(
    settings: Settings,
    taxonomy: Taxonomy,
    home: Path,
    categories: Sequence[str],
    scenarios: Sequence[str],
) -> Plan:
    """Plan a run from an empty home; nothing is drawn or called.

    Args:
        home: whose pictures and measured speeds are used.

    Raises:
        HoiError: as `plan_work` and `read_speeds`.
    """
    work = plan_work(settings, taxonomy, categories, scenarios)
    sampling, redenoising = settings.sampling, settings.redenoising
    sizes = dict.fromkeys((BASE, PROPOSER), (sampling.width, sampling.height))
    sizes |= dict.fromkeys((BENCHMARK, REPAIR, EDITOR), (redenoising.width, redenoising.height))
    used = {one.model for one in work}
    measured = {
        name: measure_picture_bytes(settings, home, size)
        for name, size in sizes.items()
        if name in used
    }
    speeds = read_speeds(settings, home)
    names = dict.fromkeys(one.asset for one in work)
    assets = tuple(
        _cost(name, [one for one in work if one.asset == name], measured, speeds) for name in names
    )
    return Plan(
        categories=tuple(categories),
        scenarios=tuple(scenarios),
        assets=assets,
        total=_cost("total", work, measured, speeds),
        calls=tuple(_by_section(call for one in work for call in one.calls)),
        picture_format=settings.picture_format,
        bytes_per_picture=measured,
        speeds=speeds,
        candidates=_limit(settings) if categories else None,
    )


def _cost(
    name: str, work: Sequence[Work], measured: dict[str, PictureBytes | None], speeds: Speeds
) -> AssetCost:
    calls = [call for one in work for call in one.calls]
    return AssetCost(
        asset=name,
        partitions=len({one.partition for one in work}),
        pictures=sum(one.pictures for one in work),
        denoiser_evaluations=sum(one.evaluations for one in work),
        training_steps=sum(one.training_steps for one in work),
        gb={form: _gigabytes(work, measured, form) for form in FORMATS},
        hours=_hours(work, speeds),
        calls=sum(call.count for call in calls),
        input_tokens=sum(call.input_tokens or 0 for call in calls),
        output_tokens=sum(call.output_tokens or 0 for call in calls),
        usd=total_usd(calls),
    )


def _gigabytes(
    work: Sequence[Work], measured: dict[str, PictureBytes | None], picture_format: str
) -> float | None:
    total = 0
    for one in work:
        if not one.pictures:
            continue
        known = measured.get(one.model or "")
        if known is None:
            return None
        total += one.pictures * known.by_format[picture_format]
    return total / BYTES_PER_GB


def _hours(work: Sequence[Work], speeds: Speeds) -> float | None:
    seconds = 0.0
    for one in work:
        if one.pictures:
            drawing = speeds.drawing.get(one.model or "")
            if drawing is None:
                return None
            seconds += drawing.seconds(one.pictures, one.evaluations)
        if one.training_steps:
            step = speeds.training.get(one.training or "")
            if step is None:
                return None
            seconds += one.training_steps * step
    return seconds / SECONDS_PER_HOUR


def _by_section(calls: Iterable[Calls]) -> list[Calls]:
    found: dict[str, list[Calls]] = {}
    for call in calls:
        found.setdefault(call.section, []).append(call)
    return [
        Calls(
            section,
            sum(one.count for one in own),
            _sum([one.input_tokens for one in own]),
            _sum([one.output_tokens for one in own]),
            total_usd(own),
            own[0].cap_usd,
        )
        for section, own in found.items()
    ]


def _sum(counts: Sequence[int | None]) -> int | None:
    return None if None in counts else sum(one for one in counts if one is not None)


def _limit(settings: Settings) -> str:
    """How many candidates a category gets, in words."""
    options = settings.candidates
    if options.accepted_goal is None:
        return f"{options.per_prompt} per accepted prompt (candidates.per_prompt)"
    return (
        f"until {options.accepted_goal} are accepted (candidates.accepted_goal), at most "
        f"{options.budget} drawn (candidates.budget); both are per category"
    )
