"""Which device models run on, and how torch is set up for a run."""

from typing import Protocol

from hoi_assets.errors import HoiError


class TorchOptions(Protocol):
    """The part of `Settings` that torch is set up by."""

    @property
    def device(self) -> str: ...

    @property
    def threads(self) -> int: ...


def configure_torch(settings: TorchOptions) -> str:
    """Set the number of threads, silence the libraries' progress bars, and return the device.

    Raises:
        HoiError: `device: cuda` without a usable GPU.
    """
    import torch

    torch.set_num_threads(settings.threads)
    silence_libraries()
    return resolve_device(settings.device)


def silence_libraries() -> None:
    """No progress bars and no warnings of the model libraries on stderr."""
    import diffusers
    import transformers

    for library in (diffusers, transformers):
        library.utils.logging.disable_progress_bar()
        library.utils.logging.set_verbosity_error()


def resolve_device(device: str) -> str:
    """The torch device name for `cpu`, `cuda` or `auto` (cuda where there is one, else cpu).

    Raises:
        HoiError: `cuda` without a usable GPU.
    """
    if device == "cpu":
        return device
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if device == "cuda":
        raise HoiError(
            "device is 'cuda' in the profile, but torch sees no GPU",
            "set `device: cpu` (or `auto`), or install a CUDA build of torch and its driver",
        )
    return "cpu"
