import numpy as np
import pytest
import torch
from PIL import Image

from hoi_assets.engines.sdxl.img2img import renoise, round_trip
from hoi_assets.engines.sdxl.loading import LoadedSDXL
from hoi_assets.settings import Sampling
from hoi_assets_tests.engines.small_sdxl import PROMPTS, picture

COLOURS = ("red", "blue", "green")

BATCH = 4


@pytest.fixture
def images() -> list[Image.Image]:
    return [picture(colour) for colour in COLOURS]


def test_renoised_picture_depends_on_itself_alone(
    loaded: LoadedSDXL, sampling: Sampling, images: list[Image.Image]
) -> None:
    together = list(renoise(loaded, images, PROMPTS, (1, 2, 3), 0.7, sampling, BATCH))
    alone = next(renoise(loaded, images[:1], PROMPTS[:1], (1,), 0.7, sampling, BATCH))
    assert together[0].tobytes() == alone.tobytes()
    other = next(renoise(loaded, images[:1], PROMPTS[:1], (4,), 0.7, sampling, BATCH))
    assert other.tobytes() != alone.tobytes()


def test_renoising_uses_the_share_of_steps_asked_for(
    loaded: LoadedSDXL, sampling: Sampling, images: list[Image.Image]
) -> None:
    calls = []
    hook = loaded.pipe.unet.register_forward_hook(lambda *_: calls.append(1))
    try:
        ten = sampling.model_copy(update={"num_inference_steps": 10})
        list(renoise(loaded, images, PROMPTS, (1, 2, 3), 0.3, ten, BATCH))
    finally:
        hook.remove()
    assert len(calls) == 3


def test_strength_zero_is_the_round_trip_through_the_vae(
    loaded: LoadedSDXL, sampling: Sampling, images: list[Image.Image]
) -> None:
    plain = [image.tobytes() for image in round_trip(loaded, images, sampling, BATCH)]
    none = [
        image.tobytes() for image in renoise(loaded, images, PROMPTS, (1, 2, 3), 0, sampling, BATCH)
    ]
    assert plain == none
    latents = loaded.pipe.vae.encode(
        torch.tensor(np.array(images[0])).permute(2, 0, 1)[None] / 127.5 - 1
    ).latent_dist.mode()
    wanted = loaded.pipe.vae.decode(latents).sample[0].permute(1, 2, 0).detach().numpy()
    got = np.frombuffer(plain[0], np.uint8).reshape(64, 64, 3)
    assert np.abs(got - (wanted / 2 + 0.5).clip(0, 1) * 255).max() < 1


def test_pictures_of_another_size_come_back_at_the_sampling_size(
    loaded: LoadedSDXL, sampling: Sampling
) -> None:
    assert next(round_trip(loaded, [picture("red", 96)], sampling, BATCH)).size == (64, 64)
