"""Everything that can be known before a run, in order: home, models, device, trainings, endpoints,
photos, prompts, and what the run will cost."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hoi_assets.engines.model_check import ModelState, check_models
from hoi_assets.engines.model_kinds import named_models
from hoi_assets.errors import HoiError
from hoi_assets.ppv.verifier_training import CALIBRATE, NOT_CALIBRATED, is_uncalibrated
from hoi_assets.preflight.costs import Plan, make_plan
from hoi_assets.preflight.endpoints import ENDPOINT_SECTIONS, check_endpoints
from hoi_assets.preflight.findings import Finding, guarded, ok, problem, warning
from hoi_assets.preflight.hub import check_hub
from hoi_assets.preflight.machine import check_cluster, check_device, check_disk, check_home
from hoi_assets.preflight.photos import check_photos
from hoi_assets.preflight.training import check_training
from hoi_assets.settings import Settings
from hoi_assets.taxonomy import Taxonomy, load_taxonomy
from hoi_assets.text import shown_bytes

# What only one of the pipelines needs.
OF_CATEGORIES = frozenset({"base", "verifier", "examiner", "prompter", "anatomy"})
OF_SCENARIOS = frozenset(
    {
        *("benchmark", "critic", "component_examiner", "blip_vqa"),
        *("decomposer", "rewriter", "judge", "vqa_score", "image_endpoint"),
    }
)


@dataclass(frozen=True)
class Diagnosis:
    """All findings, and the plan where one could be made."""

    findings: tuple[Finding, ...]
    plan: Plan | None

    @property
    def ready(self) -> bool:
        """Whether nothing would stop the run or a part of it."""
        return not any(one.state == "problem" for one in self.findings)


def diagnose(
    settings: Settings,
    home: Path,
    categories: Sequence[str],
    scenarios: Sequence[str],
    offline: bool = False,
    draw: bool = False,
) -> Diagnosis:
    """Check a profile against this machine; nothing is trained or stored here.

    Args:
        categories, scenarios: those that will be run.
        offline: make no call to the hub or to an endpoint.
        draw: let the image endpoint draw one picture, which costs its price.
    """

    def needed(name: str) -> bool:
        if name in OF_CATEGORIES:
            return bool(categories)
        return name not in OF_SCENARIOS or bool(scenarios)

    named = {name: ref for name, ref in named_models(settings.models).items() if needed(name)}
    states = list(check_models(named))
    missing = {state.entry: named[state.entry] for state in states if state.origin == "missing"}
    findings = [
        *guarded("home", str(home), lambda: check_home(home, settings.profile)),
        *_of_models(states),
        *check_hub(missing, offline),
        *guarded("device", settings.device, lambda: check_device(settings, states)),
        *guarded("device", "ray", check_cluster),
        *(check_training(settings) if categories else ()),
    ]
    if not offline:
        sections = [name for name in ENDPOINT_SECTIONS if needed(name)]
        findings += check_endpoints(settings, sections, draw)
    plan: Plan | None = None
    try:
        taxonomy = load_taxonomy(settings.taxonomy_folder)
        findings += _of_categories(settings, taxonomy, categories)
        plan = make_plan(settings, taxonomy, home, categories, scenarios)
        findings.append(ok("prompts", "plan", _planned(plan)))
    except HoiError as error:
        findings.append(problem("prompts", "plan", error.what, error.remedy))
    findings += check_disk(home, plan)
    return Diagnosis(tuple(findings), plan)


def _of_models(states: Sequence[ModelState]) -> Iterator[Finding]:
    for state in states:
        if state.problem is not None:
            yield problem("models", state.entry, state.problem, state.remedy or "")
            continue
        size = ""
        if state.memory_bytes is not None:
            size = f", {shown_bytes(state.memory_bytes)} of weights as {state.dtype}"
        facts = (f"{state.title}, {state.origin}{size}", *state.notes)
        yield ok("models", state.entry, "; ".join(facts))


def _of_categories(
    settings: Settings, taxonomy: Taxonomy, categories: Sequence[str]
) -> Iterator[Finding]:
    chosen = [taxonomy.categories[key] for key in categories]
    yield from check_photos(settings, chosen)
    for category in chosen:
        asked = len(category.base_prompts) * settings.prompter.per_base_prompt
        wanted = settings.gates.min_prompts
        if asked < wanted:
            yield problem(
                "prompts",
                category.key,
                f"{asked} detailed prompts are asked for, the gate wants {wanted} "
                "(gates.min_prompts)",
                "raise prompter.per_base_prompt, or add base prompts",
            )
    if categories and is_uncalibrated(settings):
        yield warning("prompts", "verifier", NOT_CALIBRATED, CALIBRATE)


def _planned(plan: Plan) -> str:
    return (
        f"categories: {len(plan.categories)}, scenarios: {len(plan.scenarios)}; at most "
        f"{plan.total.pictures} pictures and {plan.total.calls} calls"
    )
