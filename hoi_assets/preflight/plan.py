"""What a run from an empty home will make, per asset: pictures, trainings, calls.

Counts are upper bounds: drawing stops early where enough candidates are accepted, where a picture
has nothing to correct, and where a reply or picture is stored already. Scoring is not counted.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from hoi_assets.detailscribe.benchmark import benchmark_folder, read_benchmark
from hoi_assets.detailscribe.image_rows import MULTI_SEED, MULTI_SEED_CLIP, REFINE, REWRITE
from hoi_assets.engines.sd3.compute import (
    affordable_images,
    denoiser_evaluations,
    initial_image_spec,
    variant_evaluations,
)
from hoi_assets.grammar.plans import SCENARIOS
from hoi_assets.ppv.evaluation_images import METHODS
from hoi_assets.ppv.evaluation_prompts import general_prompts, held_out_prompts
from hoi_assets.ppv.proposer import SAMPLES
from hoi_assets.ppv.verifier_pairs import count_views
from hoi_assets.preflight.calls import CallPlanner, Calls
from hoi_assets.settings import LoraTraining, Settings
from hoi_assets.taxonomy import Category, Taxonomy

BASE, BENCHMARK = "base", "benchmark"
# Selected pictures of each prompt that the judge rates: initial, DetailScribe, CRAFT, baselines.
RATED_METHODS = 3 + len((MULTI_SEED, MULTI_SEED_CLIP, REWRITE, REFINE))


@dataclass(frozen=True)
class Work:
    """What one asset makes in one partition, at most.

    Attributes:
        asset, partition: partition is null where the asset has none.
        model: entry of the model that draws or is trained; null where none does.
        pictures: that are stored.
        evaluations: of the denoiser (NFE), for all of them.
        training: section of the training, e.g. lora; its steps are `training_steps`.
        calls: to endpoints.
    """

    asset: str
    partition: str | None
    model: str | None = None
    pictures: int = 0
    evaluations: int = 0
    training: str | None = None
    training_steps: int = 0
    calls: tuple[Calls, ...] = field(default=())


def plan_work(
    settings: Settings,
    taxonomy: Taxonomy,
    categories: Sequence[str],
    scenarios: Sequence[str],
) -> list[Work]:
    """The work of every asset that draws, trains or calls, in order of the pipelines.

    Args:
        categories, scenarios: those that are run; empty leaves that pipeline out.

    Raises:
        HoiError: endpoint settings that cannot work, or benchmark files that are missing.
    """
    calls = CallPlanner(settings)
    work: list[Work] = []
    if categories:
        work += _verifier(settings)
        for key in categories:
            work += _category(settings, taxonomy.categories[key], calls)
        work.append(_training("finetuned_model", None, "finetuning", settings.finetuning))
        for key in categories:
            work.append(_evaluation(settings, taxonomy, key))
    for scenario in SCENARIOS:
        if scenario in scenarios:
            work += _scenario(settings, scenario, calls)
    return work


def _verifier(settings: Settings) -> Iterator[Work]:
    """Renders shown as the generator would draw them; own labels are shown as they are."""
    views = count_views(settings)
    if not views:
        return
    sampling = settings.sampling
    steps = int(sampling.num_inference_steps * settings.verifier.renoise_strength)
    # The view `vae` passes through the autoencoder alone.
    evaluations = views["renoised"] * steps * _guided(sampling.guidance_scale)
    pictures = views["vae"] + views["renoised"]
    yield Work("verifier_training_pairs", None, BASE, pictures, evaluations)


def _category(settings: Settings, category: Category, calls: CallPlanner) -> Iterator[Work]:
    key, lora = category.key, settings.lora
    prompts = len(category.base_prompts) * settings.prompter.per_base_prompt
    yield Work("detailed_prompts", key, calls=tuple(calls.detailed_prompts(category)))
    classes = lora.num_class_images if lora.with_prior_preservation else 0
    drawn = classes + 2 * SAMPLES  # before and after
    trained = _training("category_loras", key, "lora", lora)
    yield _drawn(settings, trained, drawn)
    yield _drawn(settings, Work("candidate_images", key, BASE), candidate_count(settings, prompts))


def candidate_count(settings: Settings, prompts: int) -> int:
    """Most candidates of one category with so many accepted prompts."""
    options = settings.candidates
    return prompts * options.per_prompt if options.accepted_goal is None else options.budget


def _evaluation(settings: Settings, taxonomy: Taxonomy, key: str) -> Work:
    options = settings.evaluation
    prompts = [
        *held_out_prompts(taxonomy, key, options.hoi_prompts_per_category),
        *general_prompts(taxonomy, key, options.general_prompts),
    ]
    count = len(prompts) * options.images_per_prompt * len(METHODS)
    return _drawn(settings, Work("hoi_evaluation_images", key, BASE), count)


def _scenario(settings: Settings, scenario: str, calls: CallPlanner) -> Iterator[Work]:
    rows = read_benchmark(
        benchmark_folder(settings.interacting.folder),
        [scenario],
        settings.interacting.rows_per_scenario,
    )
    prompts = [row.prompt for row in rows if row.status == "accepted"]
    n, options = len(prompts), settings.redenoising
    plain = initial_image_spec(
        "",
        0,
        0,
        options.batch_size,
        options.num_inference_steps,
        options.guidance_scale,
        options.width,
        options.height,
    )
    one = denoiser_evaluations(plain)
    variants = variant_evaluations(plain, options.switch_steps, options.s_reference)
    same_compute = affordable_images(plain, one + variants)
    switches, rounds = len(options.switch_steps), options.craft_rounds
    # multi_seed and refine begin with the initial image, rewrite does not.
    baselines = 3 * same_compute - 2
    by_endpoint = n if settings.image_endpoint.endpoint is not None else 0
    yield Work("interaction_decompositions", scenario, calls=tuple(calls.decompositions(prompts)))
    yield Work("initial_images", scenario, BENCHMARK, n, n * one)
    yield Work("image_critiques", scenario, calls=tuple(calls.critiques(prompts, 1)))
    yield Work(
        "refined_images",
        scenario,
        BENCHMARK,
        n * (switches + rounds),
        n * (variants + rounds * one),
        calls=tuple(calls.critiques(prompts, switches + rounds)),
    )
    yield Work(
        "baseline_images",
        scenario,
        BENCHMARK,
        n * baselines + by_endpoint,
        n * baselines * one,
        calls=(
            *calls.critiques(prompts, baselines),
            *calls.rewritings(prompts),
            *calls.endpoint_images(by_endpoint),
        ),
    )
    yield Work(
        "interacting_scorecards",
        scenario,
        calls=tuple(calls.ratings(prompts, RATED_METHODS + bool(by_endpoint))),
    )


def _training(asset: str, partition: str | None, section: str, options: LoraTraining) -> Work:
    return Work(asset, partition, BASE, training=section, training_steps=options.max_train_steps)


def _drawn(settings: Settings, work: Work, pictures: int) -> Work:
    """`work` with so many pictures of the base model."""
    sampling = settings.sampling
    evaluations = sampling.num_inference_steps * _guided(sampling.guidance_scale)
    return Work(**{**vars(work), "pictures": pictures, "evaluations": pictures * evaluations})


def _guided(guidance_scale: float) -> int:
    """Evaluations of one denoising step: two under classifier-free guidance."""
    return 2 if guidance_scale > 1 else 1
