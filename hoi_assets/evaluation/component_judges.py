"""The judges that answer one question per component of a prompt."""

from hoi_assets.settings import ModelRef, Settings

# Probability from which the component examiner's yes counts; the critic's is a setting.
PRESENT = 0.5


def component_judges(settings: Settings) -> list[tuple[str, ModelRef, float]]:
    """Metric, VQA model, and the probability from which its yes counts."""
    models = settings.models
    critic = models.critic if settings.critic.endpoint is None else None
    named = (
        ("component_accuracy", critic, settings.critic.threshold),
        ("examiner_components", models.component_examiner, PRESENT),
    )
    return [(name, ref, threshold) for name, ref, threshold in named if ref is not None]
