"""The tiny world's AutoencoderKL: 128 px, factor 8, eight latent channels."""

from typing import Any

LATENT_CHANNELS = 8
IMAGE_SIZE = 128
LATENT_SIZE = IMAGE_SIZE // 8


def build_vae() -> Any:
    """A fresh AutoencoderKL; `scaling_factor` is set after training."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        sample_size=IMAGE_SIZE,
        latent_channels=LATENT_CHANNELS,
        block_out_channels=(16, 32, 64, 64),
        layers_per_block=1,
        # Few groups: normalising two channels by themselves would take the colour out.
        norm_num_groups=2,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        # A convolutional middle keeps encoding local and fast.
        mid_block_add_attention=False,
        scaling_factor=1.0,
        force_upcast=False,
    )


def loss_of(vae: Any, pictures: Any, recipe: Any) -> Any:
    """The loss of a step: L1 of pixels and of their differences, and a little KL."""
    from hoi_assets.tinyworld.weights.pictures import as_float, draw_indices

    def loss(generator: Any) -> Any:
        import torch

        chosen = draw_indices(len(pictures), recipe.batch_size, generator)
        pixels = as_float(pictures.pixels[chosen])
        posterior = vae.encode(pixels).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator).to(pixels.device)
        drawn = vae.decode(posterior.mean + posterior.std * noise).sample.float()
        mean, logvar = posterior.mean.float(), posterior.logvar.float()
        kl = (mean.square() + logvar.exp() - 1 - logvar).mean() / 2
        return _distance(drawn, pixels, recipe) + recipe["kl_weight"] * kl

    return loss


def decoder_loss_of(vae: Any, pictures: Any, recipe: Any) -> Any:
    """The same loss for the decoder alone, over latents that stay as they are."""
    import torch

    from hoi_assets.tinyworld.weights.pictures import as_float, draw_indices

    means, deviations = encode(vae, pictures.pixels)

    def loss(generator: Any) -> Any:
        chosen = draw_indices(len(pictures), recipe.batch_size, generator)
        noise = torch.randn((len(chosen), *means.shape[1:]), generator=generator).to(means.device)
        drawn = vae.decode(means[chosen] + deviations[chosen] * noise).sample.float()
        return _distance(drawn, as_float(pictures.pixels[chosen]), recipe)

    return loss


def _distance(drawn: Any, pixels: Any, recipe: Any) -> Any:
    from torch.nn import functional

    difference = drawn - pixels
    edges = (
        difference.diff(dim=-1).abs().mean()
        + difference.diff(dim=-2).abs().mean()
        + 2 * (_halved(difference).diff(dim=-1).abs().mean())
    )
    return (
        difference.abs().mean()
        + recipe["gradient_weight"] * edges
        + recipe["colour_weight"] * functional.avg_pool2d(difference, 8).abs().mean()
    )


def _halved(pixels: Any) -> Any:
    from torch.nn import functional

    return functional.avg_pool2d(pixels, 2)


def even_out(vae: Any, pixels: Any) -> None:
    """Give each latent channel mean 0 and deviation 1 over `pixels`; what is drawn stays the same.

    The factors go into the two 1x1 convolutions at the latents, so the noise of a diffusion model
    weighs alike on all channels.
    """
    import torch

    latents, _ = encode(vae, pixels)
    mean, deviation = latents.mean(dim=(0, 2, 3)), latents.std(dim=(0, 2, 3))
    into, out, channels = vae.quant_conv, vae.post_quant_conv, len(mean)
    with torch.no_grad():
        into.weight[:channels] /= deviation[:, None, None, None]
        into.bias[:channels] = (into.bias[:channels] - mean) / deviation
        into.bias[channels:] -= 2 * deviation.log()
        out.bias += (out.weight[:, :, 0, 0] * mean).sum(dim=1)
        out.weight *= deviation[None, :, None, None]


def encode(vae: Any, pixels: Any, batch_size: int = 64) -> tuple[Any, Any]:
    """Mean and deviation (N, C, 16, 16) of the latents of uint8 pixels, before scaling."""
    import torch

    from hoi_assets.tinyworld.weights.loop import autocast
    from hoi_assets.tinyworld.weights.pictures import as_float

    means, deviations = [], []
    with torch.inference_mode(), autocast(pixels.device):
        for batch in pixels.split(batch_size):
            posterior = vae.encode(as_float(batch)).latent_dist
            means.append(posterior.mean.float())
            deviations.append(posterior.std.float())
    return torch.cat(means).clone(), torch.cat(deviations).clone()


def decode(vae: Any, latents: Any, batch_size: int = 64) -> Any:
    """uint8 pixels of latents as `encode` gives them."""
    import torch

    from hoi_assets.tinyworld.weights.loop import autocast
    from hoi_assets.tinyworld.weights.pictures import as_bytes

    with torch.inference_mode(), autocast(latents.device):
        return torch.cat([as_bytes(vae.decode(b).sample) for b in latents.split(batch_size)])


def measure(vae: Any, pixels: Any) -> dict[str, float]:
    """PSNR in dB of round trips, and the latents' deviation."""
    mean, _ = encode(vae, pixels)
    error = (decode(vae, mean).float() - pixels.float()).square().mean(dim=(1, 2, 3))
    psnr = 10 * (255**2 / error).log10()
    return {
        "psnr_db": float(psnr.mean()),
        "psnr_db_worst_tenth": float(psnr.quantile(0.1)),
        "latent_std": float(mean.std()),
    }


def start_from_averages(vae: Any) -> None:
    """Set first weights so that colours pass: six channels carry R, G, B and their negatives
    through all levels as plain averages, and residual branches begin at zero.

    From the library's first weights a small autoencoder learns light and dark long before colour.
    """
    import torch
    from diffusers.models.downsampling import Downsample2D
    from diffusers.models.resnet import ResnetBlock2D
    from diffusers.models.upsampling import Upsample2D

    carried = range(6)
    with torch.no_grad():
        for module in vae.modules():
            if isinstance(module, ResnetBlock2D):
                module.conv2.weight.zero_()
                if module.conv_shortcut is not None:
                    pass_through(module.conv_shortcut, carried, [(0, 0, 1.0)])
            elif isinstance(module, Downsample2D):
                quarter = [(y, x, 0.25) for y in (0, 1) for x in (0, 1)]
                pass_through(module.conv, carried, quarter)
            elif isinstance(module, Upsample2D):
                pass_through(module.conv, carried, [(1, 1, 1.0)])
        for convolution, pairs in (
            (vae.encoder.conv_in, {c: {c % 3: 1.0 if c < 3 else -1.0} for c in carried}),
            (vae.encoder.conv_out, {c: {c: 1.0, c + 3: -1.0} for c in range(3)}),
            (vae.decoder.conv_in, {c: {c % 3: 1.0 if c < 3 else -1.0} for c in carried}),
            (vae.decoder.conv_out, {c: {c: 0.5, c + 3: -0.5} for c in range(3)}),
        ):
            for out, weights in pairs.items():
                convolution.weight[out].zero_()
                convolution.bias[out] = 0.0
                for channel, weight in weights.items():
                    convolution.weight[out, channel, 1, 1] = weight
        for convolution in (vae.quant_conv, vae.post_quant_conv):
            convolution.weight.copy_(torch.eye(len(convolution.weight))[:, :, None, None])
            convolution.bias.zero_()


def pass_through(convolution: Any, channels: Any, taps: list[tuple[int, int, float]]) -> None:
    """Let `channels` leave `convolution` as they entered, weighed by `taps` (y, x, weight)."""
    for channel in channels:
        convolution.weight[channel].zero_()
        convolution.bias[channel] = 0.0
        for y, x, weight in taps:
            convolution.weight[channel, channel, y, x] = weight
