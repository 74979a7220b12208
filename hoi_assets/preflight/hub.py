"""Whether the hub would give the models that are not here, and whether they fit on the disk."""

import shutil
from collections.abc import Iterator, Mapping

from hoi_assets.engines.model_fetch import HubUnreachable, download_bytes, naming_hub_errors
from hoi_assets.errors import HoiError
from hoi_assets.preflight.findings import Finding, ok, problem
from hoi_assets.preflight.machine import existing_folder
from hoi_assets.settings import ModelRef, models_folder
from hoi_assets.text import shown_bytes


def check_hub(missing: Mapping[str, ModelRef], offline: bool) -> Iterator[Finding]:
    """Licence and size of each hub repository that is to be fetched, in two calls each."""
    named = {entry: ref for entry, ref in missing.items() if ref.revision is not None}
    if not named:
        return
    total: int | None = None
    if not offline:
        total = 0
        for entry, ref in named.items():
            try:
                size = _accessible_bytes(entry, ref)
            except HubUnreachable as error:
                yield problem(
                    "licences",
                    "hub",
                    f"{len(named)} models are to be fetched, and the hub does not answer: "
                    f"{error.why}",
                    "connect to the network, or copy the folder of fetched models from another "
                    "machine to HOI_MODELS; `hoi doctor --offline` asks nobody",
                )
                total = None
                break
            except HoiError as error:
                yield problem("licences", entry, error.what, error.remedy)
                continue
            total += size
            token = "with your token" if _has_token() else "without a token"
            what = f"the hub gives {ref.source} {token}, {shown_bytes(size)} to download"
            yield ok("licences", entry, what)
    yield _room(total)


def _accessible_bytes(entry: str, ref: ModelRef) -> int:
    from huggingface_hub import HfApi

    with naming_hub_errors(ref):
        HfApi().auth_check(ref.source)
    return download_bytes(entry, ref)


def _has_token() -> bool:
    from huggingface_hub import get_token

    return bool(get_token())


def _room(needed: int | None) -> Finding:
    """The disk that models are fetched to; `needed` is null where the hub did not say."""
    folder = models_folder()
    free = shutil.disk_usage(existing_folder(folder)).free
    room = f"{shown_bytes(free)} are free at {folder}"
    if needed is None:
        return ok("disk", "models", f"{room}; what fetched models take is unknown")
    what = f"{room}, models that the hub gives take {shown_bytes(needed)}"
    if needed > free:
        return problem("disk", "models", what, "set HOI_MODELS to a folder on a larger disk")
    return ok("disk", "models", what)
