"""LoRAs for other tools: diffusers' layout, and that of Kohya's scripts, ComfyUI and Forge.

Per LoRA `<name>/pytorch_lora_weights.safetensors` (diffusers), `<name>/<name>_kohya.safetensors`,
sample pictures and a card. Rank, alpha and trigger words are metadata of both files. Tensors are
the trained ones, bit for bit: in Kohya's layout the scale alpha / rank is a tensor beside them.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hoi_assets.engines.sdxl.sampling import LORA_FILE
from hoi_assets.errors import HoiError
from hoi_assets.export.cards import render
from hoi_assets.export.folder import Draft, Exported, Plan, export
from hoi_assets.export.kohya import kohya_tensors
from hoi_assets.export.pairs import export_id
from hoi_assets.export.pictures import marked_picture
from hoi_assets.progress import Log
from hoi_assets.settings import Settings
from hoi_assets.store.versions import Published, Store
from hoi_assets.store.weights import model_digest

CATEGORY_LORAS, FINETUNED = "category_loras", "finetuned_model"
SDXL = "stabilityai/stable-diffusion-xl-base-1.0"
ADAPTER_KEY = "lora_adapter_metadata"  # diffusers' own
LICENSE = "openrail++"


@dataclass(frozen=True)
class LoraFacts:
    """What a tool or its user needs to know of a LoRA.

    Attributes:
        trigger: word that prompts begin with; empty where there is none.
        base: source of the base model; None where the profile names another than it was trained on.
    """

    name: str
    rank: int
    alpha: float
    trigger: str
    base: str | None
    base_digest: str
    version: str
    steps: int

    def metadata(self) -> dict[str, str]:
        """Entries for a safetensors header, as Kohya's scripts and modelspec have them."""
        found = {
            "ss_network_module": "networks.lora",
            "ss_network_dim": str(self.rank),
            "ss_network_alpha": f"{self.alpha:g}",
            "ss_output_name": self.name,
            "modelspec.sai_model_spec": "1.0.0",
            "modelspec.title": self.name,
            "modelspec.trigger_phrase": self.trigger,
            "hoi.version": self.version,
            "hoi.base_digest": self.base_digest,
        }
        if self.trigger:
            found["ss_tag_frequency"] = json.dumps({self.name: {self.trigger: 1}})
        if self.base == SDXL:
            found["ss_base_model_version"] = "sdxl_base_v1-0"
            found["modelspec.architecture"] = "stable-diffusion-xl-v1-base/lora"
        return found


def export_loras(
    store: Store,
    settings: Settings,
    folder: Path,
    names: Sequence[str] = (),
    log: Log = lambda _: None,
) -> Exported:
    """Export LoRAs to `folder`.

    Args:
        names: hand-pose categories and `finetuned_model`; all that are published where empty.

    Raises:
        HoiError: nothing of that name is published, or as `folder.export`.

    Example:
        >>> export_loras(store, load_settings(), Path("loras"), ["hook"])  # doctest: +SKIP
    """
    chosen = _chosen(store, names)
    base = _base_model(settings)

    def write(draft: Draft) -> None:
        facts = [_add(draft, store, published, base) for published in chosen]
        draft.add_text(
            "README.md",
            render("loras.md.j2", {"loras": facts, "base": _shared_base(facts), "file": LORA_FILE}),
        )

    plan = Plan("lora", {one.name: one.version for one in chosen}, {"base": base[1] and base[0]})
    return export(folder, plan, write, log)


def _chosen(store: Store, names: Sequence[str]) -> list[Published]:
    known = [
        *((CATEGORY_LORAS, category) for category in store.partitions(CATEGORY_LORAS)),
        *([(FINETUNED, None)] if store.current(FINETUNED) else []),
    ]
    by_name = {partition or asset: (asset, partition) for asset, partition in known}
    missing = [name for name in names if name not in by_name]
    if missing or not by_name:
        raise HoiError(
            f"no LoRA {', '.join(missing) or 'at all'} is published in {store.location}",
            f"published: {', '.join(by_name) or 'none; run `hoi run` first'}",
        )
    return [store.require(*by_name[name]) for name in (names or by_name)]


def _add(
    draft: Draft, store: Store, published: Published, base: tuple[str, str | None]
) -> LoraFacts:
    name = published.partition or published.asset
    source = published.file("lora") / LORA_FILE
    facts = _facts(published, source, name, base)
    draft.add_bytes(f"{name}/{LORA_FILE}", with_metadata(source, facts.metadata()))
    draft.add(f"{name}/{name}_kohya.safetensors", lambda path: _write_kohya(source, path, facts))
    pictures = []
    if published.asset == CATEGORY_LORAS:
        samples = published.table("samples").filter(method="lora")
        for row in samples.iter_rows(named=True):
            file = f"samples/{export_id(row['pixels'])}.png"
            draft.add_bytes(f"{name}/{file}", marked_picture(store, row["pixels"]))
            pictures.append({"file": file, "prompt": row["prompt"]})
    card = {"lora": facts, "samples": pictures, "file": LORA_FILE, "license": LICENSE}
    draft.add_text(f"{name}/README.md", render("lora.md.j2", card))
    return facts


def _facts(
    published: Published, source: Path, name: str, base: tuple[str, str | None]
) -> LoraFacts:
    summary = published.table("summary").row(0, named=True)
    adapter = json.loads(read_header(source)[0].get("__metadata__", {}).get(ADAPTER_KEY, "{}"))
    if "unet.r" not in adapter:
        raise HoiError(
            f"{source} does not say its rank", "materialise it again, so that its header says so"
        )
    return LoraFacts(
        name=name,
        rank=int(adapter["unet.r"]),
        alpha=float(adapter["unet.lora_alpha"]),
        trigger=summary.get("identifier") or "",
        base=base[0] if base[1] == summary["base_digest"] else None,
        base_digest=summary["base_digest"],
        version=published.version,
        steps=summary["best_step"] if "best_step" in summary else summary["steps"],
    )


def _base_model(settings: Settings) -> tuple[str, str | None]:
    """Source of the profile's base model, and its hash; None where its weights are not here."""
    try:
        return settings.models.base.source, model_digest(settings.models.base)
    except HoiError:
        return settings.models.base.source, None


def _shared_base(facts: Sequence[LoraFacts]) -> str | None:
    found = {one.base for one in facts}
    return next(iter(found)) if len(found) == 1 else None


def read_header(path: Path) -> tuple[dict[str, Any], bytes]:
    """Header of a safetensors file, and the bytes of its tensors."""
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


def with_metadata(path: Path, entries: Mapping[str, str]) -> bytes:
    """A safetensors file with entries added to its metadata; the tensors' bytes stay."""
    header, tensors = read_header(path)
    metadata = header.pop("__metadata__", {}) | entries
    whole = {"__metadata__": dict(sorted(metadata.items())), **header}
    text = json.dumps(whole, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + tensors


def _write_kohya(source: Path, target: Path, facts: LoraFacts) -> None:
    from safetensors.torch import load_file, save_file

    save_file(kohya_tensors(load_file(source), facts.alpha), target)
    # The library orders metadata at random: written here, equal LoRAs give equal bytes.
    target.write_bytes(with_metadata(target, {"format": "pt", **facts.metadata()}))
