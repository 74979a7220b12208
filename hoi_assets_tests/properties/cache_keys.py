"""Cache keys: any input changes them, nothing else does."""

import json
from dataclasses import fields, replace
from functools import cache
from typing import Any

from hypothesis import assume
from hypothesis import strategies as st

from hoi_assets.defs.project import published_below
from hoi_assets.detailscribe.critique import CritiqueRequest
from hoi_assets.detailscribe.decompose import reply_key
from hoi_assets.engines.image_spec import ImageSpec, Lora, image_key
from hoi_assets.engines.sd3.compute import SCHEDULER
from hoi_assets.engines.sd3.redenoising import Redenoising, variant_key
from hoi_assets.engines.vilt.verifier import score_key
from hoi_assets.evaluation.vlm_judge import RatingRequest
from hoi_assets.llm.shown_image import ShownImage
from hoi_assets.publishing.asset import stage_of
from hoi_assets.publishing.graph import gate_digest, own_inputs
from hoi_assets.publishing.stage import Stage
from hoi_assets.settings import ModelRef, Settings, load_settings
from hoi_assets_tests.properties.examples import for_all

texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
seeds = st.integers(0, 2**63 - 1)
loras = st.none() | st.builds(Lora, folder=texts, digest=texts)
specs = st.builds(
    ImageSpec,
    prompt=texts,
    seed=seeds,
    slot=st.integers(0, 64),
    steps=st.integers(1, 200),
    guidance_scale=st.floats(0, 30) | st.integers(0, 30),
    scheduler=texts,
    width=st.integers(8, 4096),
    height=st.integers(8, 4096),
    negative_prompt=texts,
    lora=loras,
)
NOT_IN_THE_PICTURE = ("slot",)


@for_all(specs, specs, st.sampled_from([field.name for field in fields(ImageSpec)]), texts)
def image_keys(one: ImageSpec, other: ImageSpec, name: str, base: str) -> None:
    changed = replace(one, **{name: getattr(other, name)})
    equal = _pixels(one) == _pixels(changed)
    assert (image_key(one, base) == image_key(changed, base)) == equal
    assert image_key(one, base) != image_key(one, f"{base}.")


def _pixels(spec: ImageSpec) -> tuple[Any, ...]:
    """What determines the picture."""
    values = [getattr(spec, f.name) for f in fields(spec) if f.name not in NOT_IN_THE_PICTURE]
    return (*values[:-1], spec.lora.digest if spec.lora else None)


@for_all(specs, texts, texts, st.integers(0, 210), st.integers(0, 210), st.booleans())
def variant_keys(
    row: ImageSpec, corrected: str, other: str, step: int, another: int, s_reference: bool
) -> None:
    assume(corrected not in (row.prompt, other) and other != row.prompt)
    row = replace(row, scheduler=SCHEDULER)
    one, changed = Redenoising(row, corrected), Redenoising(row, other)
    key = variant_key(one, step, s_reference, "base")
    # From as many steps as there are, the variant is the initial image.
    plain, also_plain = (_steps(s, s_reference) >= row.steps for s in (step, another))
    assert (key == image_key(row, "base")) == plain
    assert (variant_key(changed, step, s_reference, "base") == key) == plain
    same = (plain and also_plain) or (step == another and not plain)
    assert (variant_key(one, another, s_reference, "base") == key) == same
    if step and not plain:
        assert variant_key(one, step, not s_reference, "base") != key


def _steps(switch: int, s_reference: bool) -> int:
    return switch + 1 if s_reference and switch else switch


@for_all(texts, texts, texts, texts)
def request_keys(a: str, b: str, model: str, pixels: str) -> None:
    """Of prompts, pictures and models that differ in one sign at most."""
    identity, other = {"model": model}, {"model": f"{model}."}
    assert (reply_key(a, identity) == reply_key(b, identity)) == (a == b)
    assert reply_key(a, identity) != reply_key(a, other)
    assert (score_key(pixels, a, model) == score_key(pixels, b, model)) == (a == b)
    assert score_key(pixels, a, model) != score_key(f"{pixels}.", a, model)
    assert score_key(pixels, a, model) != score_key(pixels, a, f"{model}.")
    # No text may run over into its neighbour.
    assert score_key(pixels, f"{a}x", model) != score_key(f"{pixels}x", a, model)
    for kind in (_critique, _rating):
        key = kind(a, pixels).key(identity)
        assert (kind(b, pixels).key(identity) == key) == (a == b)
        assert kind(a, f"{pixels}.").key(identity) != key
        assert kind(a, pixels).key(other) != key
        assert kind(a, pixels, "another row").key(identity) == key


def _critique(prompt: str, pixels: str, row_id: str = "row") -> CritiqueRequest:
    return CritiqueRequest(row_id, prompt, (), _shown(pixels))


def _rating(prompt: str, pixels: str, row_id: str = "row") -> RatingRequest:
    return RatingRequest(row_id, prompt, _shown(pixels))


def _shown(pixels: str) -> ShownImage:
    return ShownImage(pixels, lambda: None)  # type: ignore[arg-type, return-value]


@cache
def _stages() -> tuple[Stage, ...]:
    return tuple(stage_of(asset) for asset in published_below("hoi_assets.defs"))


@cache
def _leaves() -> tuple[tuple[str, ...], ...]:
    """Paths of all fields of the profile `tiny` that can be changed to another valid value."""

    def walk(value: Any, path: tuple[str, ...]) -> list[tuple[str, ...]]:
        if isinstance(value, dict):
            return [leaf for key, each in value.items() for leaf in walk(each, (*path, key))]
        return [path] if isinstance(value, bool | int | float) else []

    return tuple(walk(load_settings("tiny").model_dump(), ()))


def _changed(settings: Settings, path: tuple[str, ...]) -> Settings:
    """The same settings, one field another."""
    name, *rest = path
    old = getattr(settings, name)
    if rest:
        return settings.model_copy(update={name: _changed(old, tuple(rest))})
    new = not old if isinstance(old, bool) else old + 1
    return settings.model_copy(update={name: new})


def _weights(ref: ModelRef) -> str:
    return json.dumps(ref.model_dump(), sort_keys=True)


@for_all(st.data())
def inputs_of_stages(data: st.DataObject) -> None:
    """A setting changes the inputs of the stages that declare it, and the gates that name it."""
    path = data.draw(st.sampled_from(_leaves()))
    stage = data.draw(st.sampled_from(_stages()))
    settings = load_settings("tiny")
    changed = _changed(settings, path)
    same = own_inputs(stage, settings, _weights) == own_inputs(stage, changed, _weights)
    declared = path[0] in stage.settings or (path[0] == "models" and path[1] in stage.models)
    assert same != declared, f"{'.'.join(path)} of {stage.name}"
    named = any("${" + ".".join(path) + "}" in str(one.as_json()) for one in stage.suite)
    gates = gate_digest(stage, settings) == gate_digest(stage, changed)
    assert gates != named, f"{'.'.join(path)} in the gate of {stage.name}"
