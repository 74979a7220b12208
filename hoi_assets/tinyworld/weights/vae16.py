"""The AutoencoderKL of the coming edition: factor 8, 16 latent channels, for SDXL and SD3 alike.

It is convolutional, so it learns from crops: many small steps on crops draw finer detail in the
same time than few steps on whole pictures.
"""

import copy
from pathlib import Path
from typing import Any

from hoi_assets.errors import HoiError
from hoi_assets.tinyworld.weights.vae import IMAGE_SIZE

LATENT_CHANNELS = 16


def build_vae16() -> Any:
    """A fresh AutoencoderKL of 3.1 M parameters; `scaling_factor` is set after training."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        sample_size=IMAGE_SIZE,
        latent_channels=LATENT_CHANNELS,
        block_out_channels=(16, 48, 96, 128),
        layers_per_block=1,
        # Few groups: normalising two channels by themselves would take the colour out.
        norm_num_groups=2,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        # A convolutional middle encodes a crop as it would encode the whole picture.
        mid_block_add_attention=False,
        scaling_factor=1.0,
        force_upcast=False,
    )


def stored(folder: Path) -> Any:
    """The autoencoder in `folder`, in float32.

    Raises:
        HoiError: there is none.
    """
    import torch
    from diffusers import AutoencoderKL

    if not (folder / "config.json").is_file():
        raise HoiError(
            f"no autoencoder in {folder}",
            f"train it: python -m hoi_assets.tinyworld.weights train vae16 --out {folder.parent}",
        )
    return AutoencoderKL.from_pretrained(folder, torch_dtype=torch.float32)


def save(vae: Any, folder: Path) -> None:
    """Write the autoencoder to `folder` as fp16 safetensors, in diffusers' layout."""
    copy.deepcopy(vae).half().save_pretrained(folder)


def loss_of(vae: Any, pixels: Any, recipe: Any) -> Any:
    """The loss of a step on random crops of uint8 `pixels` (N, 3, H, W): L1 and L2 of the pixels,
    L1 of their gradients, and a little KL (arXiv 2112.10752, section 3.1)."""
    from hoi_assets.tinyworld.weights.pictures import as_float

    def loss(generator: Any) -> Any:
        import torch

        size = int(recipe["crop_px"])
        real = as_float(draw_crops(pixels, recipe.batch_size, size, generator))
        posterior = vae.encode(real).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator).to(real.device)
        drawn = vae.decode(posterior.mean + posterior.std * noise).sample.float()
        difference = drawn - real
        gradients = sum(difference.diff(dim=dim).abs().mean() for dim in (-1, -2))
        mean, logvar = posterior.mean.float(), posterior.logvar.float()
        kl = (mean.square() + logvar.exp() - 1 - logvar).mean() / 2
        return (
            difference.abs().mean()
            + recipe["l2_weight"] * difference.square().mean()
            + recipe["gradient_weight"] * gradients
            + recipe["kl_weight"] * kl
        )

    return loss


def draw_crops(pixels: Any, count: int, size: int, generator: Any) -> Any:
    """`count` random crops (count, 3, size, size) of `pixels` (N, 3, H, W), half of them mirrored.

    >>> import torch
    >>> draw_crops(torch.zeros(5, 3, 9, 9), 2, 4, torch.Generator()).shape
    torch.Size([2, 3, 4, 4])
    """
    import torch

    height, width = pixels.shape[-2:]
    limits = (len(pixels), height - size + 1, width - size + 1, 2)
    drawn = [torch.randint(limit, (count,), generator=generator).tolist() for limit in limits]
    crops = []
    for index, top, left, mirror in zip(*drawn, strict=True):
        crop = pixels[index, :, top : top + size, left : left + size]
        crops.append(crop.flip(-1) if mirror else crop)
    return torch.stack(crops)
