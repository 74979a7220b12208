"""The LoRA that each round draws with: a new one is taken only if nothing else gets worse."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from hoi_assets.engines.cached_scores import cached_clip_scores
from hoi_assets.engines.image_cache import get_or_generate_images
from hoi_assets.engines.image_spec import Lora
from hoi_assets.engines.sdxl.sampling import make_image_spec
from hoi_assets.engines.seeds import seed_of
from hoi_assets.ppv.evaluation_prompts import held_out_prompts
from hoi_assets.ppv.proposer import Proposer, train_proposer
from hoi_assets.progress import Log
from hoi_assets.settings import Settings
from hoi_assets.statistics import paired_difference
from hoi_assets.store.tables import Column, Table
from hoi_assets.store.versions import Published, Store
from hoi_assets.taxonomy import Category, Taxonomy

EARLIER = "earlier"
GENERAL, OTHERS = "general", "others"


def _guard_columns(kind: str, prompts: str) -> tuple[Column, ...]:
    said = f"the new LoRA's CLIPScore less that of the one before, {prompts}"
    return (
        Column(f"{kind}_prompts", pl.Int64, f"prompts compared: {prompts}", nullable=True),
        Column(f"{kind}_difference", pl.Float64, said, "-2.5..2.5", nullable=True),
        Column(f"{kind}_low", pl.Float64, "lower end of its 95% interval", None, True),
        Column(f"{kind}_high", pl.Float64, "upper end of its 95% interval", None, True),
    )


ROUND_LORAS = Table(
    "rounds",
    "one round and the LoRA that it draws with; the table is absent where there is none",
    (
        Column("round", pl.Int64, "round; 0 before the first"),
        Column("lora_digest", pl.String, "hash of the LoRA file that it draws with"),
        Column("instance_images", pl.Int64, "instance images that there are for it"),
        Column("trained", pl.Boolean, "whether a new LoRA was trained for it"),
        Column("taken", pl.Boolean, "whether the new LoRA was taken; null without", None, True),
        Column("trained_digest", pl.String, "hash of the new LoRA; null without", None, True),
        *_guard_columns(GENERAL, "general prompts"),
        *_guard_columns(OTHERS, "held-out prompts of other categories"),
        Column("guard_evaluations", pl.Int64, "denoiser evaluations (NFE) of this comparison"),
        Column("margin", pl.Float64, "CLIPScore that the new one may lose", "0..2.5"),
        Column("why", pl.String, "what was decided, in words"),
    ),
    key=("round",),
    optional=True,
)


@dataclass(frozen=True)
class RoundLoras:
    """Attributes:
    in_force: the last LoRA that was taken.
    earlier: LoRAs that earlier rounds drew with, by digest.
    table: `ROUND_LORAS`; empty where there is no round.
    """

    in_force: Proposer
    earlier: Mapping[str, Path]
    table: pl.DataFrame


def train_round_loras(
    store: Store,
    settings: Settings,
    taxonomy: Taxonomy,
    category: Category,
    instances: pl.DataFrame,
    image_rounds: pl.DataFrame | None,
    rounds: pl.DataFrame,
    log: Log,
) -> RoundLoras:
    """Train the category's LoRA, and for each round that asks for it a new one on more images.

    LoRAs and pictures of rounds before are found, not made again.

    Args:
        instances: rows of `instance_images`.
        image_rounds: its table `INSTANCE_ROUNDS`; None where no round asked for images.
        rounds: rows of `round_plan`.

    Raises:
        HoiError: as `train_proposer`.
    """
    numbers = {} if image_rounds is None else dict(image_rounds.iter_rows())

    def up_to(number: int) -> pl.DataFrame:
        own = [numbers.get(source, 0) <= number for source in instances["source"]]
        return instances.filter(pl.Series(own, dtype=pl.Boolean))

    current = train_proposer(store, settings, category, up_to(0), log)
    blank = dict.fromkeys(ROUND_LORAS.schema) | {
        "trained": False,
        "margin": 0.0,
        "guard_evaluations": 0,
    }
    first = {"round": 0, "lora_digest": _digest(current), "why": "the first one"}
    rows = [blank | first | {"instance_images": _accepted(up_to(0))}]
    drawn_with = {_digest(current): current.folder}
    for plan in rounds.sort("round").iter_rows(named=True):
        number, margin = plan["round"], plan["guard_margin"]
        row: dict[str, Any] = blank | {
            "round": number,
            "lora_digest": _digest(current),
            "instance_images": _accepted(up_to(number)),
            "margin": margin,
            "why": "enough is accepted, no new LoRA was asked for",
        }
        if plan["renews_lora"] and number not in numbers.values():
            row["why"] = "there are no more instance images; give some, then ask for a round"
        elif plan["renews_lora"]:
            new = train_proposer(store, settings, category, up_to(number), log)
            found = _guard(store, settings, taxonomy, category, current, new, plan, log)
            worse = [kind for kind in (GENERAL, OTHERS) if not _holds(found[f"{kind}_low"], margin)]
            drawn = 2 * (found[f"{GENERAL}_prompts"] + found[f"{OTHERS}_prompts"])
            passes = 2 if settings.sampling.guidance_scale > 1 else 1
            row["guard_evaluations"] = drawn * passes * settings.sampling.num_inference_steps
            row |= {**found, "trained": True, "taken": not worse, "trained_digest": _digest(new)}
            row["why"] = (
                f"refused, the one before stays: on {' and '.join(worse)} prompts it may lose more "
                f"than {margin:g} of CLIPScore"
                if worse
                else f"taken: it loses at most {margin:g} of CLIPScore on prompts not its own"
            )
            if not worse:
                current = new
                row["lora_digest"] = _digest(new)
                drawn_with[_digest(new)] = new.folder
        log(f"{category.key}: LoRA of round {number}: {row['why']}")
        rows.append(row)
    drawn_with.pop(_digest(current), None)
    table = ROUND_LORAS.frame(rows if len(rows) > 1 else [])
    return RoundLoras(current, drawn_with, table)


def lora_of_round(published: Published, number: int) -> Lora:
    """The LoRA that a round draws with; of a round that the version does not know, that in force.

    Args:
        published: version of `category_loras`.
    """
    loras = published_loras(published)
    digests = {row["round"]: row["lora_digest"] for row in _rounds(published)}
    return loras[digests[number]] if number in digests else next(iter(loras.values()))


def published_loras(published: Published) -> dict[str, Lora]:
    """Every LoRA in a version of `category_loras` or `finetuned_model`, by digest; that in force
    comes first."""
    in_force = str(published.table("summary")["lora_digest"][0])
    folders = {in_force: "lora"}
    for row in _rounds(published):
        folders.setdefault(row["lora_digest"], f"{EARLIER}/{row['lora_digest']}")
    return {one: Lora(str(published.file(name)), one) for one, name in folders.items()}


def lora_outcomes(published: Published) -> dict[int, dict[str, Any]]:
    """Rows of `ROUND_LORAS` by round; empty where there was no round."""
    return {row["round"]: row for row in _rounds(published)}


def _rounds(published: Published) -> list[dict[str, Any]]:
    table = published.optional_table(ROUND_LORAS.name)
    return [] if table is None else table.to_dicts()


def _accepted(instances: pl.DataFrame) -> int:
    return instances.filter(pl.col("status") == "accepted").height


def _digest(proposer: Proposer) -> str:
    return str(proposer.summary["lora_digest"][0])


def _holds(low: float | None, margin: float) -> bool:
    return low is not None and low >= -margin


def _guard(
    store: Store,
    settings: Settings,
    taxonomy: Taxonomy,
    category: Category,
    old: Proposer,
    new: Proposer,
    plan: Mapping[str, Any],
    log: Log,
) -> dict[str, Any]:
    """CLIPScore of both LoRAs, from equal noise, on prompts that are not the category's.

    The prompts go without its identifier: what is asked is whether the LoRA spoils what it was not
    trained for.
    """
    found: dict[str, Any] = {}
    for kind, prompts in guard_prompts(taxonomy, category, plan["guard_prompts"]).items():
        scores = []
        for proposer in (new, old):
            lora = Lora(folder=str(proposer.folder), digest=_digest(proposer))
            specs = [
                make_image_spec(settings.sampling, text, seed_of("guard", text), place, lora)
                for place, text in enumerate(prompts)
            ]
            drawn = get_or_generate_images(
                store, settings, specs, f"{kind} prompts that guard {category.key}", log
            )
            rows = [
                {"pixels": one.pixels, "prompt": text}
                for one, text in zip(drawn, prompts, strict=True)
                if one.pixels is not None
            ]
            values = cached_clip_scores(store, settings, rows, log)
            by_prompt = zip((row["prompt"] for row in rows), values, strict=True)
            scores.append(dict(by_prompt))
        both = [text for text in prompts if all(text in one for one in scores)]
        after, before = ([one[text] for text in both] for one in scores)
        compared = paired_difference(after, before)
        found |= {
            f"{kind}_prompts": compared.n,
            f"{kind}_difference": compared.difference,
            f"{kind}_low": compared.low,
            f"{kind}_high": compared.high,
        }
    return found


def guard_prompts(taxonomy: Taxonomy, category: Category, most: int) -> dict[str, list[str]]:
    """General prompts, and held-out prompts of the other categories in turn: at most `most` each,
    none twice."""
    keys = [key for key in sorted(taxonomy.categories) if key != category.key]
    held_out = [held_out_prompts(taxonomy, key, most) for key in keys]
    turns = max((len(own) for own in held_out), default=0)
    others = [own[turn].text for turn in range(turns) for own in held_out if turn < len(own)]
    general = [prompt.text for prompt in taxonomy.general_prompts]
    return {
        GENERAL: list(dict.fromkeys(general))[:most],
        OTHERS: list(dict.fromkeys(others))[:most],
    }
