"""What DetailScribe makes of one scenario: pictures and calls, counted as its stages make them."""

from collections.abc import Iterator, Sequence

from hoi_assets.detailscribe.baselines.compute import evaluation_budget, new_images
from hoi_assets.detailscribe.benchmark import benchmark_folder, read_benchmark
from hoi_assets.detailscribe.image_rows import MULTI_SEED, MULTI_SEED_CLIP, REFINE, REWRITE
from hoi_assets.detailscribe.local_repair import repair_steps
from hoi_assets.engines.image_spec import ImageSpec
from hoi_assets.engines.sd3.compute import (
    denoiser_evaluations,
    initial_image_spec,
    start_step,
    variant_evaluations,
)
from hoi_assets.preflight.calls import CallPlanner
from hoi_assets.preflight.work import BENCHMARK, EDITOR, REPAIR, Work, guided
from hoi_assets.settings import ImageEditing, Settings

# Methods that select one picture of each prompt, besides those that a profile may add: initial,
# DetailScribe, CRAFT, baselines.
SELECTING_METHODS = 3 + len((MULTI_SEED, MULTI_SEED_CLIP, REWRITE, REFINE))


def scenario_work(settings: Settings, scenario: str, calls: CallPlanner) -> Iterator[Work]:
    """The work of every asset of a scenario that draws or calls.

    Raises:
        HoiError: endpoint settings that cannot work, or benchmark files that are missing.
    """
    rows = [
        row
        for row in read_benchmark(
            benchmark_folder(settings.interacting.folder),
            [scenario],
            settings.interacting.rows_per_scenario,
        )
        if row.status == "accepted"
    ]
    prompts, n, plain = [row.prompt for row in rows], len(rows), _plain(settings)
    one = denoiser_evaluations(plain)
    published = settings.critic.protocol == "published"
    yield Work("interaction_decompositions", scenario, calls=tuple(calls.decompositions(prompts)))
    yield Work("initial_images", scenario, BENCHMARK, n, n * one)
    critiques = calls.published_critiques(rows) if published else calls.critiques(prompts, 1)
    yield Work("image_critiques", scenario, calls=tuple(critiques))

    refined = list(_refined(settings, scenario, plain, n))
    yield from refined
    # To select, the critic judges every picture by its components; by the published protocol it has
    # not judged the initial one so yet.
    new = sum(work.pictures for work in refined) // max(1, n)
    judged = calls.critiques(prompts, new + published)
    yield Work("refined_images", scenario, calls=tuple(judged))

    drawn = _baseline_pictures(settings, plain)
    by_endpoint = n if settings.image_endpoint.endpoint is not None else 0
    yield Work("baseline_images", scenario, BENCHMARK, n * drawn, n * drawn * one)
    yield Work(
        "baseline_images",
        scenario,
        BENCHMARK if by_endpoint else None,
        by_endpoint,
        calls=(
            *calls.critiques(prompts, drawn),
            *calls.rewritings(prompts),
            *(calls.suggestions(prompts) if published else ()),
            *calls.endpoint_images(by_endpoint),
        ),
    )

    selected = SELECTING_METHODS + bool(by_endpoint)
    selected += (settings.local_repair is not None) + (settings.models.editor is not None)
    every = 1 + new + drawn + bool(by_endpoint)
    rated = every if settings.judge.rates == "all" else min(selected, every)
    yield Work(
        "interacting_scorecards",
        scenario,
        calls=(
            *calls.ratings(rows, rated),
            *calls.yes_probabilities(prompts, min(selected, every)),
        ),
    )


def _plain(settings: Settings) -> ImageSpec:
    """The specification of an initial image, for its compute."""
    options = settings.redenoising
    return initial_image_spec(
        "",
        0,
        0,
        options.batch_size,
        options.num_inference_steps,
        options.guidance_scale,
        options.width,
        options.height,
    )


def _refined(settings: Settings, scenario: str, plain: ImageSpec, n: int) -> Iterator[Work]:
    """Variants and rounds; repairs and edits where they are set; of `n` prompts."""
    options, asset = settings.redenoising, "refined_images"
    one = denoiser_evaluations(plain)
    variants = variant_evaluations(plain, options.switch_steps, options.s_reference)
    count, rounds = len(options.switch_steps) + options.craft_rounds, options.craft_rounds
    yield Work(asset, scenario, BENCHMARK, n * count, n * (variants + rounds * one))
    left = evaluation_budget(settings, plain) - one
    if settings.local_repair is not None:
        steps = repair_steps(settings.local_repair.strength, plain.steps)
        each = steps * guided(options.guidance_scale)
        repairs = max(1, left // each)
        model = BENCHMARK if settings.models.repair is None else REPAIR
        yield Work(asset, scenario, model, n * repairs, n * repairs * each)
    if settings.models.editor is not None:
        editing = settings.image_editing or ImageEditing()
        # Whether a step of the editor takes one evaluation or two is known once it has drawn.
        least = editing.num_inference_steps
        edits = min(editing.max_edits, max(1, left // least))
        spent = min(2 * least * edits, max(left, 2 * least))
        yield Work(asset, scenario, EDITOR, n * edits, n * spent)


def _baseline_pictures(settings: Settings, plain: ImageSpec) -> int:
    """New pictures of the baselines for one prompt."""
    options = settings.redenoising
    drawn = sum(new_images(settings, plain).values())
    starts: Sequence[int] = [
        start_step(plain, step, options.s_reference) for step in options.switch_steps
    ]
    # Refine's first picture is the variant that is drawn from noise, where both have one prompt.
    shared = settings.critic.protocol == "components" and 0 in starts
    return drawn - (shared and new_images(settings, plain)[REFINE] > 0)
