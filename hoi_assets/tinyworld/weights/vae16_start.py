"""First weights of the 16-channel autoencoder: its latents begin as the 16 principal components of
8x8 patches, its decoder as a smooth enlargement of the patches' mean colours.

From the library's first weights it would spend most of a short training on finding these.
"""

from typing import Any

from hoi_assets.tinyworld.weights.vae import pass_through

CORNERS = ((0, 0), (0, 1), (1, 0), (1, 1))
COMPONENTS_PER_GROUP = 31
ENCODER_CONSTANT = 16.0
DECODER_CONSTANT = 4.0
FIRST_LOGVAR = -8.0


def start_from_components(vae: Any, pixels: Any) -> None:
    """Set the first weights of `vae` (of `build_vae16`) from uint8 `pixels` (N, 3, 128, 128).

    Residual branches begin at zero, so that the encoder is linear up to its last normalisation.
    There a pair of large constants in each group makes the deviation nearly the same for all
    pictures, and pairs of channels of opposite sign pass the SiLU: silu(x) - silu(-x) = x.
    """
    import torch
    from diffusers.models.resnet import ResnetBlock2D

    mean, scaled, directions = components(pixels, 2 * COMPONENTS_PER_GROUP)
    with torch.no_grad():
        for module in vae.modules():
            if isinstance(module, ResnetBlock2D):
                module.conv2.weight.zero_()
                module.conv2.bias.zero_()
        _start_encoder(vae.encoder, mean, scaled)
        _start_decoder(vae.decoder, mean, directions[:, : vae.config.latent_channels])
        for convolution in (vae.quant_conv, vae.post_quant_conv):
            convolution.weight.copy_(torch.eye(len(convolution.weight))[:, :, None, None])
            convolution.bias.zero_()


def components(pixels: Any, count: int) -> tuple[Any, Any, Any]:
    """Principal components of 8x8 patches, scaled to deviation 1.

    Returns:
        Mean patch (192); `count` rows (count, 192) that turn a patch less its mean into
        components; columns (192, count) that turn components into a patch less its mean.
    """
    import torch

    from hoi_assets.tinyworld.weights.pictures import as_float

    patches = fold(fold(fold(as_float(pixels)))).movedim(1, -1).flatten(0, -2)
    mean = patches.mean(dim=0)
    patches -= mean
    values, vectors = torch.linalg.eigh((patches.T @ patches / len(patches)).double())
    values, vectors = values.flip(0)[:count].clamp_min(1e-6), vectors.flip(1)[:, :count]
    deviation = values.sqrt()
    return mean, (vectors / deviation).T.float(), (vectors * deviation).float()


def fold(pictures: Any) -> Any:
    """Each 2x2 block's pixels as channels: (N, C, H, W) to (N, 4C, H/2, W/2)."""
    import torch

    return torch.cat([pictures[..., y::2, x::2] for y, x in CORNERS], dim=1)


def _start_encoder(encoder: Any, mean: Any, scaled: Any) -> None:
    import torch

    first, second, third, last = encoder.down_blocks
    pass_through(encoder.conv_in, range(3), [(1, 1, 1.0)])
    for block, channels in ((first, 3), (second, 12)):
        convolution = block.downsamplers[0].conv
        convolution.weight[: 4 * channels].zero_()
        convolution.bias[: 4 * channels] = 0.0
        for corner, (y, x) in enumerate(CORNERS):
            for channel in range(channels):
                convolution.weight[corner * channels + channel, channel, y, x] = 1.0
    pass_through(second.resnets[0].conv_shortcut, range(12), [(0, 0, 1.0)])
    pass_through(third.resnets[0].conv_shortcut, range(48), [(0, 0, 1.0)])
    count = len(scaled)
    convolution = third.downsamplers[0].conv
    convolution.weight[:count].zero_()
    for corner, (y, x) in enumerate(CORNERS):
        convolution.weight[:count, :48, y, x] = scaled[:, 48 * corner : 48 * corner + 48]
    convolution.bias[:count] = -scaled @ mean
    shortcut, channels = last.resnets[0].conv_shortcut, encoder.conv_out.in_channels
    shortcut.weight.zero_()
    shortcut.bias.zero_()
    encoder.conv_out.weight.zero_()
    encoder.conv_out.bias.zero_()
    latents = encoder.conv_out.out_channels // 2
    encoder.conv_out.bias[latents:] = FIRST_LOGVAR
    half = channels // 2
    variance = (2 * ENCODER_CONSTANT**2 + 2 * COMPONENTS_PER_GROUP) / half
    for component in range(count):
        group, place = divmod(component, COMPONENTS_PER_GROUP)
        for offset, sign in ((0, 1.0), (COMPONENTS_PER_GROUP, -1.0)):
            channel = group * half + offset + place
            shortcut.weight[channel, component] = sign
            if component < latents:
                encoder.conv_out.weight[component, channel, 1, 1] = sign * variance**0.5
    for group in range(2):
        shortcut.bias[(group + 1) * half - 2 : (group + 1) * half] = torch.tensor(
            [ENCODER_CONSTANT, -ENCODER_CONSTANT]
        )


def _start_decoder(decoder: Any, mean: Any, directions: Any) -> None:
    """Channels 0 to 5 carry R, G, B and their negatives, 6 to 21 the latents as far as they go."""
    latents, colours = directions.shape[1], range(6)
    signs = [(colour, 1.0 if colour < 3 else -1.0) for colour in colours]
    decoder.conv_in.weight[: 6 + latents].zero_()
    decoder.conv_in.bias[: 6 + latents] = 0.0
    for channel, sign in signs:
        row = directions[channel % 3 :: 3].mean(dim=0)
        decoder.conv_in.weight[channel, :, 1, 1] = sign * row
        decoder.conv_in.bias[channel] = sign * mean[channel % 3 :: 3].mean()
    for latent in range(latents):
        decoder.conv_in.weight[6 + latent, latent, 1, 1] = 1.0
    weights = (0.25, 0.5, 0.25)
    # After a nearest enlargement these weights make it a bilinear one.
    bilinear = [(y, x, weights[y] * weights[x]) for y in range(3) for x in range(3)]
    for block in decoder.up_blocks:
        for resnet in block.resnets:
            if resnet.conv_shortcut is not None:
                pass_through(resnet.conv_shortcut, colours, [(0, 0, 1.0)])
        for upsampler in block.upsamplers or ():
            pass_through(upsampler.conv, colours, bilinear)
    shortcut = decoder.up_blocks[-1].resnets[0].conv_shortcut
    for channel, constant in ((6, DECODER_CONSTANT), (7, -DECODER_CONSTANT)):
        shortcut.weight[channel].zero_()
        shortcut.bias[channel] = constant
    decoder.conv_out.weight.zero_()
    decoder.conv_out.bias.zero_()
    for channel, sign in signs:
        decoder.conv_out.weight[channel % 3, channel, 1, 1] = sign * DECODER_CONSTANT / 2
