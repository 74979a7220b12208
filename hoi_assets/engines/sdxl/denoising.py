"""The denoising loss of LoRA training: encoded images, noise, min-SNR weights, prior loss."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from hoi_assets.engines.sdxl.loading import LoadedSDXL
from hoi_assets.engines.seeds import generator, seed_of
from hoi_assets.errors import HoiError
from hoi_assets.settings import LoraTraining

# Validation noises every image to these shares of the noise schedule.
VALIDATION_TIMES = (0.125, 0.375, 0.625, 0.875)


@dataclass(frozen=True)
class Examples:
    """Encoded images.

    Attributes:
        latents: (n, channels, height, width), scaled; float32.
        time_ids: (n, 6), SDXL's sizes and crop.
        embeds: n times (1, tokens, width).
        pooled: n times (1, width).
    """

    latents: Any
    time_ids: Any
    embeds: list[Any]
    pooled: list[Any]

    def __len__(self) -> int:
        return len(self.embeds)

    def take(self, indices: Sequence[int]) -> tuple[Any, Any, Any, Any]:
        """Latents, time ids, embeddings and pooled embeddings at `indices`, as batches."""
        import torch

        places = list(indices)
        return (
            self.latents[places],
            self.time_ids[places],
            torch.cat([self.embeds[i] for i in places]),
            torch.cat([self.pooled[i] for i in places]),
        )


class DenoisingLoss:
    """The loss of a micro-batch, as a function of its number alone.

    A micro-batch holds `train_batch_size` examples, and as many priors where there are any. Which
    ones, their noise and times follow from the seed and the number.

    Attributes:
        denoiser: the UNet, perhaps wrapped by an `accelerate.Accelerator`.
        dtype: of the UNet's weights.
        examples: what is learned.
        priors: what must not be forgotten (DreamBooth's class images); may be empty.
        held_out: what `validation` measures on; may be empty.
    """

    def __init__(
        self,
        loaded: LoadedSDXL,
        denoiser: Any,
        config: LoraTraining,
        examples: Examples,
        priors: Examples,
        held_out: Examples,
    ) -> None:
        from diffusers import DDPMScheduler

        self.examples, self.priors, self.held_out = examples, priors, held_out
        self.denoiser, self.dtype = denoiser, loaded.denoiser.dtype
        self.device, self.config = loaded.device, config
        self.schedule = DDPMScheduler.from_config(loaded.pipe.scheduler.config)
        if self.schedule.config.prediction_type not in ("epsilon", "v_prediction"):
            raise HoiError(
                f"model {loaded.ref.source!r} predicts {self.schedule.config.prediction_type!r}",
                "use a base model that predicts epsilon or v_prediction",
            )

    def __call__(self, number: int) -> tuple[Any, Any, Any]:
        """Total, instance and prior loss (0 without priors) of micro-batch `number`."""
        import torch

        size, seed = self.config.train_batch_size, self.config.seed
        taken = [
            one.take(batch_indices(len(one), size, number, seed_of(seed, "order", place)))
            for place, one in enumerate((self.examples, self.priors))
            if len(one)
        ]
        batch = [torch.cat(parts) for parts in zip(*taken, strict=True)]
        randomness = generator(seed_of(seed, "noise", number))
        noise = torch.randn(batch[0].shape, generator=randomness)
        steps = self.schedule.config.num_train_timesteps
        times = torch.randint(0, steps, (len(noise),), generator=randomness)
        weighted = None if self.config.weight_prior_by_snr else size
        per_image = self.per_image(batch, noise, times, weighted)
        instance = per_image[:size].mean()
        if not len(self.priors):
            return instance, instance, torch.zeros(())
        prior = per_image[size:].mean()
        return instance + self.config.prior_loss_weight * prior, instance, prior

    def validation(self) -> float:
        """Mean loss over the held-out images at fixed times and noise."""
        import torch

        count, size = len(self.held_out), self.config.train_batch_size
        total = 0.0
        for start in range(0, count, size):
            indices = range(start, min(start + size, count))
            batch = self.held_out.take(indices)
            shape = (1, *batch[0].shape[1:])
            for place, share in enumerate(VALIDATION_TIMES):
                noise = torch.cat(
                    [
                        torch.randn(shape, generator=generator(seed_of("validation", i, place)))
                        for i in indices
                    ]
                )
                time = int(share * self.schedule.config.num_train_timesteps)
                with torch.no_grad():
                    losses = self.per_image(batch, noise, torch.full((len(noise),), time))
                total += losses.sum().item()
        return total / (count * len(VALIDATION_TIMES))

    def per_image(
        self, batch: Sequence[Any], noise: Any, times: Any, weighted: int | None = None
    ) -> Any:
        """Mean squared error of each image, weighted by min-SNR: (n,), float32.

        Args:
            weighted: how many images, from the first, are weighted; None: all.
        """
        import torch

        latents, time_ids, embeds, pooled = batch
        noise, times = noise.to(self.device, latents.dtype), times.to(self.device)
        predicted = self.denoiser(
            self.schedule.add_noise(latents, noise, times).to(self.dtype),
            times,
            encoder_hidden_states=embeds.to(self.dtype),
            added_cond_kwargs={"text_embeds": pooled.to(self.dtype), "time_ids": time_ids},
            return_dict=False,
        )[0]
        velocity = self.schedule.config.prediction_type == "v_prediction"
        target = self.schedule.get_velocity(latents, noise, times) if velocity else noise
        error = torch.nn.functional.mse_loss(predicted.float(), target.float(), reduction="none")
        weights = min_snr_weights(self.schedule, times, self.config.snr_gamma)
        if weighted is not None:
            weights[weighted:] = 1
        return error.flatten(1).mean(dim=1) * weights


def min_snr_weights(schedule: Any, times: Any, gamma: float | None) -> Any:
    """Loss weights min(SNR, gamma) / SNR (arXiv 2303.09556, section 3.4), over SNR + 1 for
    v-prediction; ones where `gamma` is None.

    Args:
        schedule: a diffusers scheduler with `alphas_cumprod`.
        times: (n,) integers in [0, num_train_timesteps).
    """
    import torch
    from diffusers.training_utils import compute_snr

    if gamma is None:
        return torch.ones_like(times, dtype=torch.float32)
    snr = compute_snr(schedule, times)
    velocity = schedule.config.prediction_type == "v_prediction"
    return snr.clamp(max=gamma) / (snr + 1 if velocity else snr)


def batch_indices(count: int, size: int, moment: int, seed: int) -> list[int]:
    """Indices of micro-batch `moment` in an endless stream of shuffled epochs of `count`."""
    import torch

    orders: dict[int, list[int]] = {}
    indices = []
    for place in range(moment * size, (moment + 1) * size):
        epoch, within = divmod(place, count)
        if epoch not in orders:
            shuffle = generator(seed_of(seed, epoch))
            orders[epoch] = torch.randperm(count, generator=shuffle).tolist()
        indices.append(orders[epoch][within])
    return indices


def encode(loaded: LoadedSDXL, pairs: Sequence[tuple[Image.Image, str]]) -> Examples:
    """Latents of each image (mode of the posterior), embeddings of each caption."""
    import torch

    pipe, side = loaded.pipe, loaded.resolution
    latents, time_ids = [], []
    texts: dict[str, tuple[Any, Any]] = {}
    for image, caption in pairs:
        square, corner = _square(image.convert("RGB"), side)
        pixels = pipe.image_processor.preprocess(square).to(loaded.device, pipe.vae.dtype)
        with torch.no_grad():
            posterior = pipe.vae.encode(pixels).latent_dist
        latents.append(posterior.mode() * pipe.vae.config.scaling_factor)
        # The order of the pipeline's own time ids: original size, crop's top left, target size.
        time_ids.append([image.height, image.width, *corner, side, side])
        if caption not in texts:
            texts[caption] = loaded.encode(caption)
    return Examples(
        latents=torch.cat(latents).float() if latents else None,
        time_ids=torch.tensor(time_ids, dtype=torch.float32, device=loaded.device),
        embeds=[texts[caption][0] for _, caption in pairs],
        pooled=[texts[caption][1] for _, caption in pairs],
    )


def _square(image: Image.Image, side: int) -> tuple[Image.Image, tuple[int, int]]:
    """Shorter side resized to `side`, centre cropped; with the crop's (top, left)."""
    scale = side / min(image.size)
    width, height = (max(side, round(length * scale)) for length in image.size)
    if (width, height) != image.size:
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    top, left = (height - side) // 2, (width - side) // 2
    return image.crop((left, top, left + side, top + side)), (top, left)
