"""The 16-channel autoencoder: its first weights, its crops, its training and its round trips."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from hoi_assets.errors import HoiError
from hoi_assets.tinyworld.weights import vae
from hoi_assets.tinyworld.weights.__main__ import main
from hoi_assets.tinyworld.weights.card import read_card
from hoi_assets.tinyworld.weights.pictures import Pictures, as_float, read_pictures
from hoi_assets.tinyworld.weights.recipes import RECIPES
from hoi_assets.tinyworld.weights.run import Run
from hoi_assets.tinyworld.weights.train import COMING, STAGES, train
from hoi_assets.tinyworld.weights.vae16 import build_vae16, draw_crops
from hoi_assets.tinyworld.weights.vae16_start import components, fold, start_from_components

SHORT = replace(RECIPES["vae16"], steps=2, batch_size=2, learning_rate=1e-4)


@pytest.fixture(scope="module")
def shapes(shapes_world: Path) -> Pictures:
    return read_pictures(shapes_world, "pretrain")


@pytest.fixture(scope="module")
def trained(shapes_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models with the autoencoder after two steps."""
    folder = tmp_path_factory.mktemp("next")
    recipes = {**RECIPES, "vae16": SHORT}
    state = folder / "state"
    train(["vae16"], Run(shapes_world, folder, state, lambda line: None, recipes=recipes))
    return folder


def test_autoencoder_has_16_channels_at_an_eighth_of_the_size() -> None:
    model = build_vae16()
    assert 3.0e6 < sum(p.numel() for p in model.parameters()) < 3.2e6
    with torch.inference_mode():
        latents = model.encode(torch.zeros(1, 3, 64, 64)).latent_dist.mean
        assert latents.shape == (1, 16, 8, 8)
        assert model.decode(latents).sample.shape == (1, 3, 64, 64)


def test_first_latents_are_the_principal_components_of_patches(shapes: Pictures) -> None:
    torch.manual_seed(0)
    model = build_vae16()
    start_from_components(model, shapes.pixels)
    mean, scaled, _ = components(shapes.pixels, 16)
    patches = fold(fold(fold(as_float(shapes.pixels[:4]))))
    expected = torch.einsum("kc,bchw->bkhw", scaled, patches - mean[:, None, None])
    latents, deviations = vae.encode(model, shapes.pixels[:4])
    assert (latents - expected).std() < 0.1 * expected.std()
    assert deviations.max() < 0.05
    assert vae.measure(model, shapes.pixels[:8])["psnr_db"] > 20


def test_evening_out_changes_the_latents_and_not_what_is_drawn(shapes: Pictures) -> None:
    torch.manual_seed(0)
    model, pixels = build_vae16(), shapes.pixels[:8]
    start_from_components(model, shapes.pixels)
    with torch.no_grad():
        model.quant_conv.weight *= 3
    before = vae.decode(model, vae.encode(model, pixels)[0]).int()
    vae.even_out(model, pixels)
    latents, _ = vae.encode(model, pixels)
    assert torch.allclose(latents.mean(dim=(0, 2, 3)), torch.zeros(16), atol=1e-3)
    assert torch.allclose(latents.std(dim=(0, 2, 3)), torch.ones(16), atol=1e-2)
    assert (vae.decode(model, latents).int() - before).abs().max() <= 1


def test_crops_are_parts_of_the_pictures_or_of_their_mirror_images() -> None:
    pixels = torch.arange(2 * 3 * 6 * 6).reshape(2, 3, 6, 6)
    crops = draw_crops(pixels, 40, 4, torch.Generator().manual_seed(0))
    windows = pixels.unfold(2, 4, 1).unfold(3, 4, 1).permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
    plain = [any(torch.equal(crop, window) for window in windows) for crop in crops]
    mirrored = [any(torch.equal(crop.flip(-1), window) for window in windows) for crop in crops]
    assert all(a != b for a, b in zip(plain, mirrored, strict=True))
    assert 10 < sum(mirrored) < 30
    again = draw_crops(pixels, 40, 4, torch.Generator().manual_seed(0))
    assert torch.equal(crops, again)


def test_stored_autoencoder_loads_plainly_and_its_card_says_how_it_was_made(trained: Path) -> None:
    from diffusers import AutoencoderKL

    model = AutoencoderKL.from_pretrained(trained / "vae16")
    assert model.config.latent_channels == 16
    assert 0.5 < model.config.scaling_factor < 2
    card = read_card(trained / "vae16")
    assert (card.recipe_digest, card.steps) == (SHORT.digest, 2)
    assert card.quality["psnr_db"] > 15
    assert "--go-on" in (trained / "vae16" / "README.md").read_text(encoding="utf-8")


def test_training_goes_on_from_the_stored_autoencoder(
    trained: Path, shapes_world: Path, tmp_path: Path
) -> None:
    shutil.copytree(trained / "vae16", tmp_path / "vae16")
    before = read_card(tmp_path / "vae16").quality["psnr_db"]
    still = replace(SHORT, steps=1, learning_rate=0.0)
    state = tmp_path / "state"
    train(
        ["vae16"],
        Run(
            *(shapes_world, tmp_path, state, lambda line: None),
            recipes={**RECIPES, "vae16": still},
            go_on=True,
        ),
    )
    card = read_card(tmp_path / "vae16")
    assert f"recipe {SHORT.digest} after 2 steps" in card.note
    assert card.quality["psnr_db"] == pytest.approx(before, abs=0.05)


def test_models_of_the_coming_edition_are_trained_only_when_named() -> None:
    assert set(COMING) == {"vae16", "sdxl16"}
    assert not set(COMING) & set(STAGES)


def test_round_trips_are_measured_beside_the_present_autoencoder(
    trained: Path, fresh_weights: Path, shapes_world: Path, tmp_path: Path
) -> None:
    folder, sheet = tmp_path / "vae16", tmp_path / "sheet.webp"
    shutil.copytree(trained / "vae16", folder)
    places = ["--vae", str(folder), "--present", str(fresh_weights / "sdxl")]
    drawn = ["--world", str(shapes_world), "--sheet", str(sheet)]
    assert main(["round-trips", *places, *drawn]) == 0
    quality = read_card(folder).quality
    assert quality["psnr_db"] > quality["present_vae_psnr_db"]
    assert Image.open(sheet).width > 3 * 2 * 3 * 128


def test_missing_autoencoder_is_named(trained: Path, tmp_path: Path) -> None:
    from hoi_assets.tinyworld.weights.vae16 import stored

    with pytest.raises(HoiError, match="no autoencoder in"):
        stored(tmp_path / "vae16")
