"""Whether the options of the trainings can work on this machine."""

from collections.abc import Iterator

from hoi_assets.errors import HoiError
from hoi_assets.preflight.findings import Finding, problem
from hoi_assets.settings import Settings


def check_training(settings: Settings) -> Iterator[Finding]:
    """Packages and precision of `lora` and `finetuning`; nothing where all is well."""
    from hoi_assets.engines.device import resolve_device
    from hoi_assets.engines.sdxl.training_requirements import check_requirements

    try:
        device = resolve_device(settings.device)
    except HoiError:
        return  # said by the check of the device
    for section in ("lora", "finetuning"):
        try:
            check_requirements(getattr(settings, section), settings.models.base, device)
        except HoiError as error:
            yield problem("trainings", section, error.what, error.remedy)
