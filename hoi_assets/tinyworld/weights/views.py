"""Renders as the generator would show them: through the VAE, or re-noised and denoised, so that
judges that learn from renders know generated pictures too. What a picture shows stays."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from hoi_assets.hashing import digest
from hoi_assets.progress import Log, track
from hoi_assets.tinyworld.weights.pictures import Pictures
from hoi_assets.tinyworld.weights.sdxl import TIME_IDS, encode_text
from hoi_assets.tinyworld.weights.tokenizers import token_ids
from hoi_assets.tinyworld.weights.vae import decode, encode

STRENGTHS = (0.2, 0.27, 0.35)
DENOISING_STEPS = 4
GUIDANCE_SCALE = 3.0
BATCH_SIZE = 50


def with_views(
    pictures: Pictures, pipeline: Any, through_vae: int, renoised: int, folder: Path, log: Log
) -> Pictures:
    """`pictures`, and some of them again as the generator shows them; their rows say how in
    `shown_as` (render, vae or renoised). Twins are shown together.

    Args:
        through_vae: how many pictures are added as VAE round trips.
        renoised: how many are added re-noised and denoised by `pipeline`.
        folder: keeps what was computed, so that the next judge finds it.
    """
    from safetensors.torch import load_file, save_file

    plain, noisy = _spread(pictures, through_vae, 0), _spread(pictures, renoised, 1)
    key = digest([pictures.digest, through_vae, renoised, _fingerprint(pipeline)])[:16]
    path = folder / f"views-{key}.safetensors"
    if path.is_file():
        pixels = load_file(path)["pixels"].to(pictures.pixels.device)
    else:
        pixels = _compute(pictures, pipeline, plain, noisy, log)
        folder.mkdir(parents=True, exist_ok=True)
        save_file({"pixels": pixels.cpu()}, path)
    shown = pictures.take([*plain, *noisy]).shown_as(pixels)
    views = ["vae"] * len(plain) + ["renoised"] * len(noisy)
    return _labelled(pictures, ["render"] * len(pictures)).joined(_labelled(shown, views))


def _labelled(pictures: Pictures, views: list[str]) -> Pictures:
    rows = [row | {"shown_as": view} for row, view in zip(pictures.rows, views, strict=True)]
    return replace(pictures, rows=rows)


def _spread(pictures: Pictures, count: int, offset: int) -> list[int]:
    """`count` numbers of pictures, evenly spread; of twins pairs stay together."""
    together = 2 if pictures.are_twins else 1
    total = len(pictures) // together
    count = min(count // together, total)
    chosen = [(number * total // count + offset) % total for number in range(count)]
    return [number * together + place for number in chosen for place in range(together)]


def _fingerprint(pipeline: Any) -> list[float]:
    """Numbers that change with the weights."""
    return [float(p.detach().double().abs().sum()) for p in pipeline.unet.conv_in.parameters()] + [
        float(p.detach().double().abs().sum()) for p in pipeline.vae.decoder.conv_out.parameters()
    ]


def _compute(
    pictures: Pictures, pipeline: Any, plain: list[int], noisy: list[int], log: Log
) -> Any:
    import torch

    shown = [pictures.pixels[:0]]
    if plain:
        shown.append(decode(pipeline.vae, encode(pipeline.vae, pictures.pixels[plain])[0]))
    batches = [noisy[start : start + BATCH_SIZE] for start in range(0, len(noisy), BATCH_SIZE)]
    for number, batch in enumerate(track(batches, "renoised pictures (batches)", log=log)):
        strength = STRENGTHS[number % len(STRENGTHS)]
        generator = torch.Generator().manual_seed(number)
        shown.append(_renoise(pictures.take(batch), pipeline, strength, generator))
    return torch.cat(shown)


def _renoise(pictures: Pictures, pipeline: Any, strength: float, generator: Any) -> Any:
    """DDIM from `strength` of the schedule, under the caption that is true."""
    import torch

    from hoi_assets.tinyworld.weights.loop import autocast

    device = pictures.pixels.device
    signal = pipeline.scheduler.alphas_cumprod.float().to(device)
    scale = pipeline.vae.config.scaling_factor
    latents = encode(pipeline.vae, pictures.pixels)[0] * scale
    texts = [pictures.true_caption(index, None) for index in range(len(pictures))]
    count = len(texts)
    first = int(strength * len(signal))
    times = [round(first * (DENOISING_STEPS - n) / DENOISING_STEPS) for n in range(DENOISING_STEPS)]
    noise = torch.randn(latents.shape, generator=generator).to(device)
    with torch.inference_mode(), autocast(device):
        embeds, pooled = encode_text(
            pipeline.text_encoder,
            pipeline.text_encoder_2,
            token_ids(pipeline.tokenizer, texts, device=device)[0],
            token_ids(pipeline.tokenizer_2, texts, device=device)[0],
        )
        conditions = {
            "encoder_hidden_states": torch.cat([torch.zeros_like(embeds), embeds]),
            "added_cond_kwargs": {
                "text_embeds": torch.cat([torch.zeros_like(pooled), pooled]),
                "time_ids": torch.tensor([TIME_IDS] * 2 * count).float().to(device),
            },
        }
        noisy = signal[first].sqrt() * latents + (1 - signal[first]).sqrt() * noise
        for now, after in zip(times, [*times[1:], None], strict=True):
            both = pipeline.unet(torch.cat([noisy, noisy]), now, **conditions).sample.float()
            without, under = both.chunk(2)
            velocity = without + GUIDANCE_SCALE * (under - without)
            kept, lost = signal[now].sqrt(), (1 - signal[now]).sqrt()
            clean, noise = kept * noisy - lost * velocity, kept * velocity + lost * noisy
            left = signal[after] if after is not None else torch.ones_like(signal[0])
            noisy = left.sqrt() * clean + (1 - left).sqrt() * noise
    return decode(pipeline.vae, noisy / scale)
