"""Small random FLUX, FLUX Kontext, Qwen-Image and SDXL, drawn by what their signatures take."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from hoi_assets.engines.auto.loading import (
    LoadedAutoPipeline,
    auto_text_reader,
    load_editor,
    load_text_to_image,
    pipeline_name,
    supports_lora,
)
from hoi_assets.engines.auto.sampling import (
    SCHEDULER,
    AutoImage,
    AutoSpec,
    auto_key,
    auto_lora,
    call_arguments,
    draw_images,
    unused_options,
)
from hoi_assets.engines.image_spec import ImageSpec
from hoi_assets.errors import HoiError
from hoi_assets.settings import ModelRef
from hoi_assets_tests.engines.small_auto import SIDE, make_flux, make_qwen_image
from hoi_assets_tests.engines.small_sdxl import make_sdxl

STEPS = 2
MAKERS = {
    "flux": make_flux,
    "qwen": make_qwen_image,
    "sdxl": make_sdxl,
    "kontext": lambda folder: make_flux(folder, kontext=True),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    for name, make in MAKERS.items():
        make(folder / name)
    return {name: folder / name for name in MAKERS}


def ref_of(folder: Path) -> ModelRef:
    return ModelRef(source=str(folder))


@pytest.fixture(scope="module", params=["flux", "qwen", "sdxl"])
def loaded(request: pytest.FixtureRequest, folders: dict[str, Path]) -> LoadedAutoPipeline:
    return load_text_to_image(ref_of(folders[request.param]))


def specs(count: int = 2, **options: Any) -> list[AutoSpec]:
    rows = [
        ImageSpec(f"a hand holds a cup {n}", 5 + n, 0, STEPS, 3.5, SCHEDULER, SIDE, SIDE)
        for n in range(count)
    ]
    return [AutoSpec(row, **options) for row in rows]


def pixels(one: AutoImage) -> np.ndarray:
    assert one.image is not None, one.reason
    return np.asarray(one.image)


def test_image_is_the_one_of_a_plain_call_of_the_pipeline(loaded: LoadedAutoPipeline) -> None:
    first, second = draw_images(loaded, specs())
    (alone,) = draw_images(loaded, specs()[1:])
    assert (pixels(alone) == pixels(second)).all() and (pixels(first) != pixels(second)).any()
    guided = {} if type(loaded.pipe).__name__ == "QwenImagePipeline" else {"guidance_scale": 3.5}
    plain = loaded.pipe(
        prompt=specs()[0].row.prompt,
        negative_prompt="",
        num_inference_steps=STEPS,
        width=SIDE,
        height=SIDE,
        generator=torch.Generator("cpu").manual_seed(5),
        **guided,
    ).images[0]
    assert np.abs(pixels(first).astype(int) - np.asarray(plain).astype(int)).max() <= 1


def test_evaluations_are_counted_as_they_are_made(loaded: LoadedAutoPipeline) -> None:
    (spec,) = specs(1)
    (one,) = draw_images(loaded, [spec])
    # FLUX's guidance is distilled: one pass a step, whatever its scale.
    distilled = type(loaded.pipe).__name__ == "FluxPipeline"
    assert one.denoiser_evaluations == (STEPS if distilled else 2 * STEPS)
    if "true_cfg_scale" in loaded.takes:
        for scale, passes in ((1.0, STEPS), (3.0, 2 * STEPS)):
            (one,) = draw_images(loaded, [replace(spec, true_cfg_scale=scale)])
            assert one.denoiser_evaluations == passes


def test_only_what_the_pipeline_takes_is_passed_and_the_rest_named(
    folders: dict[str, Path],
) -> None:
    (spec,) = specs(1, true_cfg_scale=2.0, max_sequence_length=64)
    flux, qwen, sdxl = (
        load_text_to_image(ref_of(folders[name])) for name in ("flux", "qwen", "sdxl")
    )
    assert call_arguments(flux, spec)["guidance_scale"] == 3.5
    # Not distilled: it would warn and ignore it.
    assert "guidance_scale" not in call_arguments(qwen, spec)
    assert call_arguments(qwen, spec)["true_cfg_scale"] == 2.0
    assert unused_options(flux, spec) == unused_options(qwen, spec) == []
    assert unused_options(sdxl, spec) == ["true_cfg_scale", "max_sequence_length"]


def test_key_follows_all_that_determines_the_image() -> None:
    (spec,) = specs(1)
    others = [
        replace(spec, true_cfg_scale=1.0),
        replace(spec, max_sequence_length=64),
        replace(spec, picture="p"),
        replace(spec, row=replace(spec.row, seed=1)),
    ]
    assert len({auto_key(one, "base") for one in [spec, *others]}) == 5


def test_each_text_encoder_is_counted_with_its_own_limit(folders: dict[str, Path]) -> None:
    def limits(name: str, length: int | None) -> dict[str, int]:
        return {
            one.name: one.limit for one in auto_text_reader(ref_of(folders[name]), length).load()
        }

    assert limits("flux", None) == {"text_encoder": 32, "text_encoder_2": 512}
    assert limits("flux", 64) == {"text_encoder": 32, "text_encoder_2": 64}
    assert limits("qwen", None) == {"text_encoder": 512}


def test_lora_changes_the_image_and_leaves_the_base_as_it_was(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    from diffusers import FluxPipeline
    from diffusers.utils import convert_state_dict_to_diffusers
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    assert supports_lora(ref_of(folders["flux"]))
    trained = load_text_to_image(ref_of(shutil.copytree(folders["flux"], tmp_path / "copy")))
    torch.manual_seed(1)
    config = LoraConfig(r=2, lora_alpha=4, init_lora_weights=False, target_modules=["to_q", "to_v"])
    trained.pipe.transformer.add_adapter(config)
    FluxPipeline.save_lora_weights(
        tmp_path / "lora",
        transformer_lora_layers=convert_state_dict_to_diffusers(
            get_peft_model_state_dict(trained.pipe.transformer)
        ),
        transformer_lora_adapter_metadata=trained.pipe.transformer.peft_config["default"].to_dict(),
    )
    trained.pipe.unload_lora_weights()
    lora = auto_lora(tmp_path / "lora")
    assert lora is not None and auto_lora(tmp_path) is None
    loaded = load_text_to_image(ref_of(folders["flux"]))
    (spec,) = specs(1)
    tuned = replace(spec, row=replace(spec.row, lora=lora))
    before, with_lora, after = draw_images(loaded, [spec, tuned, spec])
    assert (pixels(before) == pixels(after)).all()
    assert (pixels(before) != pixels(with_lora)).any()
    (again,) = draw_images(loaded, [tuned])
    assert (pixels(again) == pixels(with_lora)).all()


def test_edit_follows_picture_and_instruction(folders: dict[str, Path]) -> None:
    loaded = load_editor(ref_of(folders["kontext"]))
    pictures = {
        "red": Image.new("RGB", (SIDE, SIDE), (220, 30, 30)),
        "blue": Image.new("RGB", (SIDE, SIDE), (30, 30, 220)),
    }
    (spec,) = specs(1, picture="red")
    told = replace(spec, row=replace(spec.row, prompt="open the hand"))
    first, other, otherwise, again = draw_images(
        loaded, [spec, replace(spec, picture="blue"), told, spec], pictures.__getitem__
    )
    assert first.image is not None and first.image.size == (SIDE, SIDE)
    assert first.denoiser_evaluations == STEPS
    assert (pixels(first) == pixels(again)).all()
    assert (pixels(first) != pixels(other)).any() and (pixels(first) != pixels(otherwise)).any()


def test_pipelines_of_the_wrong_kind_are_refused_by_name(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    assert pipeline_name(ref_of(folders["kontext"])) == "FluxKontextPipeline"
    with pytest.raises(HoiError, match="FluxPipeline does not edit a picture"):
        load_editor(ref_of(folders["flux"]))
    folder = Path(shutil.copytree(folders["flux"], tmp_path / "other"))
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))

    def rewrite(**changes: Any) -> None:
        (folder / "model_index.json").write_text(json.dumps(index | changes), encoding="utf-8")

    rewrite(_class_name="FluxImg2ImgPipeline")  # it has a strength, and follows no instruction
    with pytest.raises(HoiError, match="does not edit a picture"):
        load_editor(ref_of(folder))
    rewrite(_class_name="NoSuchPipeline")
    with pytest.raises(HoiError, match="no pipeline 'NoSuchPipeline' in diffusers"):
        load_text_to_image(ref_of(folder))
    rewrite(transformer=["my_module", "MyTransformer"])
    with pytest.raises(HoiError, match="transformer is of 'my_module', which is not loaded"):
        load_text_to_image(ref_of(folder))
    rewrite(_class_name="AudioLDM2Pipeline")
    with pytest.raises(HoiError, match="cannot be loaded"):
        load_text_to_image(ref_of(folder))


def test_weights_that_do_not_fill_the_model_are_refused(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(folders["flux"], tmp_path / "cut"))
    path = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    state = load_file(path)
    state.pop(sorted(state)[0])
    save_file(state, path, {"format": "pt"})
    with pytest.raises(HoiError, match="1 missing keys"):
        load_text_to_image(ref_of(folder))
