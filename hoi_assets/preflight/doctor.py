"""Everything that can be known before a run, in order: home, models, device, trainings, endpoints,
photos, prompts, and what the run will cost."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from hoi_assets.engines.model_check import ModelState, check_models
from hoi_assets.engines.model_kinds import named_models
from hoi_assets.errors import HoiError
from hoi_assets.ppv.verifier_training import CALIBRATE, NOT_CALIBRATED, is_uncalibrated
from hoi_assets.preflight.calls import CHAT_SECTIONS
from hoi_assets.preflight.costs import Plan, make_plan
from hoi_assets.preflight.endpoints import check_endpoints
from hoi_assets.preflight.findings import Finding, guarded, ok, problem, warning
from hoi_assets.preflight.machine import check_cluster, check_device, check_disk, check_home
from hoi_assets.preflight.photos import check_photos
from hoi_assets.preflight.training import check_training
from hoi_assets.settings import ModelRef, Settings
from hoi_assets.taxonomy import Taxonomy, load_taxonomy
from hoi_assets.text import shown_bytes

# What only one of the pipelines needs.
OF_CATEGORIES = frozenset({"base", "verifier", "examiner", "prompter", "anatomy"})
OF_SCENARIOS = frozenset(
    {
        *("benchmark", "critic", "component_examiner", "blip_vqa"),
        *("decomposer", "rewriter", "judge", "image_endpoint"),
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
) -> Diagnosis:
    """Check a profile against this machine; nothing is drawn, trained or stored.

    Args:
        categories, scenarios: those that will be run.
        offline: make no call to the hub or to an endpoint.
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
        *(() if offline else _licences(missing)),
        *guarded("device", settings.device, lambda: check_device(settings, states)),
        *guarded("device", "ray", check_cluster),
        *(check_training(settings) if categories else ()),
    ]
    if not offline:
        sections = [name for name in (*CHAT_SECTIONS, "image_endpoint") if needed(name)]
        findings += check_endpoints(settings, sections)
    plan: Plan | None = None
    try:
        taxonomy = load_taxonomy(settings.taxonomy_folder)
        findings += _of_categories(settings, taxonomy, categories)
        plan = make_plan(settings, taxonomy, home, categories, scenarios)
        findings.append(ok("prompts", "plan", _planned(plan)))
    except HoiError as error:
        findings.append(problem("prompts", "plan", error.what, error.remedy))
    findings += check_disk(home, plan, bool(missing))
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


def _licences(missing: dict[str, ModelRef]) -> Iterator[Finding]:
    """Whether the hub would give the models that are not here; one call each."""
    for entry, ref in missing.items():
        if ref.revision is not None:
            yield from guarded("licences", entry, partial(_access, entry, ref))


def _access(entry: str, ref: ModelRef) -> Iterator[Finding]:
    from huggingface_hub import HfApi, get_token

    from hoi_assets.engines.model_fetch import naming_hub_errors

    with naming_hub_errors(ref):
        HfApi().auth_check(ref.source)
    token = "with your token" if get_token() else "without a token"
    yield ok("licences", entry, f"the hub gives {ref.source} {token}")


def _of_categories(
    settings: Settings, taxonomy: Taxonomy, categories: Sequence[str]
) -> Iterator[Finding]:
    for key in categories:
        category = taxonomy.categories[key]
        yield from guarded("photos", key, partial(check_photos, settings, category))
        asked = len(category.base_prompts) * settings.prompter.per_base_prompt
        wanted = settings.gates.min_prompts
        if asked < wanted:
            yield problem(
                "prompts",
                key,
                f"{asked} detailed prompts are asked for, the gate wants {wanted} "
                "(gates.min_prompts)",
                "raise prompter.per_base_prompt, or add base prompts",
            )
    if categories and is_uncalibrated(settings):
        yield warning("prompts", "verifier", NOT_CALIBRATED, CALIBRATE)


def _planned(plan: Plan) -> str:
    return (
        f"{len(plan.categories)} categories and {len(plan.scenarios)} scenarios: at most "
        f"{plan.total.pictures} pictures, {plan.total.calls} calls"
    )
