"""Qwen-Image-Edit in its hub layout, small: an editor that needs no torchvision."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from hoi_assets.engines.auto.loading import LoadedEditor, load_editor
from hoi_assets.engines.auto.sampling import SCHEDULER, AutoSpec, draw_images
from hoi_assets.engines.image_spec import ImageSpec
from hoi_assets.engines.model_check import check_models
from hoi_assets.errors import HoiError
from hoi_assets.settings import ModelRef
from hoi_assets_tests.engines.small_auto import SIDE, make_qwen_image


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("edit")
    make_qwen_image(made, edit=True)
    return made


@pytest.fixture(scope="module")
def loaded(folder: Path) -> LoadedEditor:
    return load_editor(ModelRef(source=str(folder)))


def noise(seed: int, side: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def shown(loaded: LoadedEditor, picture: Image.Image) -> dict[str, Any]:
    """What the pipeline's processor makes of an instruction and a picture."""
    text = "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>open the hand<|im_end|>\n"
    return dict(loaded.pipe.processor(text=[text], images=picture, return_tensors="pt"))


def test_it_edits_by_picture_and_instruction(
    loaded: LoadedEditor, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit as edit

    # The pipeline encodes every picture at 1024 by 1024, half a minute here; 128 by 128 instead.
    whole = edit.calculate_dimensions
    monkeypatch.setattr(edit, "calculate_dimensions", lambda area, r: whole(area // 64, r))
    pictures = {"one": noise(1, SIDE), "other": noise(2, SIDE)}

    def spec(prompt: str, picture: str) -> AutoSpec:
        row = ImageSpec(prompt, 5, 0, 1, 1.0, SCHEDULER, SIDE, SIDE)
        return AutoSpec(row, picture=picture, true_cfg_scale=1.0)

    asked = [spec("open the hand", "one"), spec("close it", "one"), spec("open the hand", "other")]
    drawn = list(draw_images(loaded, asked, pictures.__getitem__))
    for one in drawn:
        assert one.image is not None, one.reason
        assert one.image.size == (SIDE, SIDE) and one.denoiser_evaluations == 1
    assert len({one.image.tobytes() for one in drawn if one.image is not None}) == 3


def test_its_processor_expands_the_picture_and_resizes_it_by_pillow(loaded: LoadedEditor) -> None:
    from transformers import Qwen2VLImageProcessorPil

    processor = loaded.pipe.processor
    assert not hasattr(processor, "video_processor")
    picture = noise(3, 112)
    found = shown(loaded, picture)
    assert found["image_grid_thw"].tolist() == [[1, 8, 8]]
    assert int((found["input_ids"] == processor.image_token_id).sum()) == 16
    plain = Qwen2VLImageProcessorPil(size={"shortest_edge": 3136, "longest_edge": 16 * 28 * 28})
    assert torch.equal(found["pixel_values"], plain(picture, return_tensors="pt")["pixel_values"])


def test_pictures_have_rows_and_columns_although_diffusers_drops_what_tells_them(
    loaded: LoadedEditor,
) -> None:
    encoder, inputs = loaded.pipe.text_encoder, shown(loaded, noise(4, 112))
    assert "mm_token_type_ids" in inputs
    passed = {name: one for name, one in inputs.items() if name != "mm_token_type_ids"}
    line = torch.arange(inputs["input_ids"].shape[1]).expand(3, 1, -1)
    with torch.inference_mode():
        whole, found, as_text = (
            encoder(**given, output_hidden_states=True).hidden_states[-1]
            for given in (inputs, passed, {**passed, "position_ids": line})
        )
    assert torch.equal(found, whole)
    assert not torch.allclose(found, as_text, atol=1e-4)


def test_it_passes_the_check_and_a_broken_processor_is_named(folder: Path, tmp_path: Path) -> None:
    import shutil

    (state,) = check_models({"editor": ModelRef(source=str(folder))})
    assert state.problem is None and state.memory_bytes
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "processor" / "preprocessor_config.json"
    facts = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(facts)[:-5], encoding="utf-8")
    with pytest.raises(HoiError, match="processor"):
        load_editor(ModelRef(source=str(tmp_path)))
