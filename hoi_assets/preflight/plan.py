"""What a run from an empty home will make, per asset: pictures, trainings, calls.

Counts are upper bounds: drawing stops early where enough candidates are accepted, where a picture
has nothing to correct, and where a reply or picture is stored already. Scoring is not counted.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from hoi_assets.grammar.plans import SCENARIOS
from hoi_assets.ppv.evaluation_images import METHODS
from hoi_assets.ppv.evaluation_prompts import general_prompts, held_out_prompts
from hoi_assets.ppv.proposer import SAMPLES
from hoi_assets.ppv.verifier_pairs import count_views
from hoi_assets.preflight.calls import CallPlanner
from hoi_assets.preflight.scenario_plan import scenario_work
from hoi_assets.preflight.work import BASE, PROPOSER, Work, guided
from hoi_assets.settings import LoraTraining, Proposer, Settings
from hoi_assets.taxonomy import Category, Taxonomy


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
        if settings.anatomy is not None:
            # The labelled pictures that the signal is measured on, of validation and test split.
            labelled = calls.anatomy(2 * settings.anatomy.calibration_images)
            work.append(Work("verified_pairs", categories[0], calls=tuple(labelled)))
        work.append(_training("finetuned_model", None, "finetuning", settings.finetuning))
        for key in categories:
            work += _evaluation(settings, taxonomy, key, calls)
    for scenario in SCENARIOS:
        if scenario in scenarios:
            work += scenario_work(settings, scenario, calls)
    return work


def _verifier(settings: Settings) -> Iterator[Work]:
    """Renders shown as the generator would draw them; own labels are shown as they are."""
    views = count_views(settings)
    if not views:
        return
    sampling = settings.sampling
    steps = int(sampling.num_inference_steps * settings.verifier.renoise_strength)
    # The view `vae` passes through the autoencoder alone.
    evaluations = views["renoised"] * steps * guided(sampling.guidance_scale)
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
    count = candidate_count(settings, prompts)
    yield _candidates(settings, key, count)
    if asked := calls.anatomy(count):
        yield Work("verified_pairs", key, calls=tuple(asked))


def _candidates(settings: Settings, key: str, count: int) -> Work:
    """Candidates of the category's LoRA, or of `models.proposer`."""
    work = Work("candidate_images", key, BASE)
    if settings.models.proposer is None:
        return _drawn(settings, work, count)
    options = settings.proposer or Proposer()
    # Of a pipeline of any class it is not known whether a step takes one evaluation or two.
    evaluations = 2 * options.num_inference_steps * count
    return replace(work, model=PROPOSER, pictures=count, evaluations=evaluations)


def candidate_count(settings: Settings, prompts: int) -> int:
    """Most candidates of one category with so many accepted prompts."""
    options = settings.candidates
    return prompts * options.per_prompt if options.accepted_goal is None else options.budget


def _evaluation(
    settings: Settings, taxonomy: Taxonomy, key: str, calls: CallPlanner
) -> Iterator[Work]:
    options = settings.evaluation
    held_out = held_out_prompts(taxonomy, key, options.hoi_prompts_per_category)
    general = general_prompts(taxonomy, key, options.general_prompts)
    each = options.images_per_prompt * len(METHODS)
    count = (len(held_out) + len(general)) * each
    yield _drawn(settings, Work("hoi_evaluation_images", key, BASE), count)
    if asked := calls.anatomy(len(held_out) * each):
        yield Work("hoi_scorecards", None, calls=tuple(asked))


def _training(asset: str, partition: str | None, section: str, options: LoraTraining) -> Work:
    return Work(asset, partition, BASE, training=section, training_steps=options.max_train_steps)


def _drawn(settings: Settings, work: Work, pictures: int) -> Work:
    """`work` with so many pictures of the base model."""
    sampling = settings.sampling
    evaluations = sampling.num_inference_steps * guided(sampling.guidance_scale)
    return replace(work, pictures=pictures, evaluations=pictures * evaluations)
