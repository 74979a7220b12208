"""What a training's options need of the machine, checked before anything is loaded or drawn."""

from importlib.util import find_spec

from hoi_assets.errors import HoiError
from hoi_assets.settings import LoraTraining, ModelRef

OPTIMIZER_PACKAGES = {
    "prodigy": ("prodigyopt", "prodigyopt>=1.1.2,<2"),
    "adamw_8bit": ("bitsandbytes", "bitsandbytes>=0.50,<1"),
}


def check_requirements(config: LoraTraining, base: ModelRef, device: str) -> None:
    """Refuse options that cannot work here.

    Raises:
        HoiError: fp16 without a GPU, a float16 base model without fp16, or an optimiser or tracker
            that is not installed.
    """
    if config.mixed_precision == "fp16" and not device.startswith("cuda"):
        raise HoiError(
            f"mixed_precision fp16 needs a GPU, and the device is {device}",
            "set mixed_precision to no, or to bf16 on a CPU with AMX",
        )
    if base.dtype == "float16" and config.mixed_precision != "fp16":
        raise HoiError(
            f"model {base.source!r} is loaded as float16, in which training overflows",
            "set mixed_precision to fp16 (on a GPU), or the model's dtype to float32 or bfloat16",
        )
    if config.optimizer in OPTIMIZER_PACKAGES:
        package, wanted = OPTIMIZER_PACKAGES[config.optimizer]
        _require(f"optimizer {config.optimizer}", package, wanted, "set optimizer to adamw")
    if config.report_to is not None:
        tracker = config.report_to
        _require(f"report_to {tracker}", tracker, tracker, "set report_to to null")


def _require(option: str, package: str, wanted: str, instead: str) -> None:
    if find_spec(package) is None:
        raise HoiError(
            f"{option} needs the package {package}, which is not installed",
            f"pip install '{wanted}', or {instead}",
        )
