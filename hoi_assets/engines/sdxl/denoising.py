"""The denoising loss of LoRA training: noise, min-SNR weights, prior loss."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hoi_assets.engines.sdxl.examples import Examples
from hoi_assets.engines.sdxl.loading import LoadedSDXL
from hoi_assets.engines.seeds import generator, seed_of
from hoi_assets.errors import HoiError
from hoi_assets.settings import LoraTraining

# Validation noises every image to these shares of the noise schedule.
VALIDATION_TIMES = (0.125, 0.375, 0.625, 0.875)


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
        """Total, instance and prior loss (0 without priors) of micro-batch `number`.

        Priors of another size than the examples are passed through the UNet on their own.
        """
        import torch

        size, seed = self.config.train_batch_size, self.config.seed
        randomness = generator(seed_of(seed, "noise", number))
        offsets = generator(seed_of(seed, "noise offset", number))
        steps = self.schedule.config.num_train_timesteps
        found = []
        with self._dropping(number):
            batches = [self._batch(place, number) for place in range(2 if len(self.priors) else 1)]
            if len({batch[0].shape for batch in batches}) == 1:
                batches = [self._joined(batches)]
            for place, batch in enumerate(batches):
                noise = torch.randn(batch[0].shape, generator=randomness)
                if self.config.noise_offset:
                    noise = offset_noise(noise, self.config.noise_offset, offsets)
                times = torch.randint(0, steps, (len(noise),), generator=randomness)
                weighted = None if self.config.weight_prior_by_snr else size * (place == 0)
                found.append(self.per_image(batch, noise, times, weighted))
        per_image = torch.cat(found)
        instance = per_image[:size].mean()
        if not len(self.priors):
            return instance, instance, torch.zeros(())
        prior = per_image[size:].mean()
        return instance + self.config.prior_loss_weight * prior, instance, prior

    def _batch(self, place: int, number: int) -> tuple[Any, Any, Any, Any]:
        """Examples (place 0) or priors (place 1) of micro-batch `number`."""
        import torch

        config, seed = self.config, self.config.seed
        some, size = (self.examples, self.priors)[place], config.train_batch_size
        indices = bucket_indices(some.buckets, size, number, seed_of(seed, "order", place))

        def drawn(purpose: str, share: float) -> list[bool]:
            randomness = generator(seed_of(seed, purpose, place, number))
            return (torch.rand(size, generator=randomness) < share).tolist()

        mirrored = drawn("flip", 0.5) if some.mirrored else []
        dropped = config.proportion_empty_prompts if place == 0 else 0.0
        empty = drawn("empty prompts", dropped) if dropped else []
        return some.take(indices, mirrored, empty)

    def _joined(self, batches: list[tuple[Any, Any, Any, Any]]) -> tuple[Any, Any, Any, Any]:
        import torch

        latents, time_ids, embeds, pooled = zip(*batches, strict=True)
        joined = self.examples.join(embeds)
        return torch.cat(latents), torch.cat(time_ids), joined, torch.cat(pooled)

    @contextmanager
    def _dropping(self, number: int) -> Iterator[None]:
        """Dropout, which draws from torch's global state, follows from seed and micro-batch."""
        import torch

        if not self.config.lora_dropout:
            yield
            return
        on_gpu = self.device.startswith("cuda")
        with torch.random.fork_rng(devices=[torch.device(self.device)] if on_gpu else []):
            torch.manual_seed(seed_of(self.config.seed, "dropout", number))
            yield

    def validation(self) -> float:
        """Mean loss over the held-out images at fixed times and noise, without dropout."""
        import torch

        size, total = self.config.train_batch_size, 0.0
        for bucket in self.held_out.buckets:
            for start in range(0, len(bucket), size):
                indices = bucket[start : start + size]
                with torch.no_grad():
                    batch = self.held_out.take(indices)
                    total += self._validation_sum(batch, indices)
        return total / (len(self.held_out) * len(VALIDATION_TIMES))

    def _validation_sum(self, batch: tuple[Any, Any, Any, Any], indices: Sequence[int]) -> float:
        import torch

        total, shape = 0.0, (1, *batch[0].shape[1:])
        for place, share in enumerate(VALIDATION_TIMES):
            noise = torch.cat(
                [
                    torch.randn(shape, generator=generator(seed_of("validation", i, place)))
                    for i in indices
                ]
            )
            time = int(share * self.schedule.config.num_train_timesteps)
            losses = self.per_image(batch, noise, torch.full((len(noise),), time))
            total += losses.sum().item()
        return total

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


def offset_noise(noise: Any, strength: float, randomness: Any) -> Any:
    """Noise (n, channels, height, width) whose channels are shifted, as diffusers' `noise_offset`
    does it."""
    import torch

    return noise + strength * torch.randn((*noise.shape[:2], 1, 1), generator=randomness)


def bucket_indices(
    buckets: Sequence[Sequence[int]], size: int, moment: int, seed: int
) -> list[int]:
    """Images of micro-batch `moment` in an endless stream of shuffled epochs.

    With one bucket, batches cross the border of epochs. With several, a batch holds one bucket's
    images; the last of a bucket is filled from the bucket's beginning.

    Args:
        buckets: numbers of the images of each size.
    """
    if len(buckets) == 1:
        return [buckets[0][place] for place in batch_indices(len(buckets[0]), size, moment, seed)]
    batches = [(b, n) for b, bucket in enumerate(buckets) for n in range(-(-len(bucket) // size))]
    epoch, within = divmod(moment, len(batches))
    number, nth = batches[_shuffled(len(batches), seed_of(seed, "buckets", epoch))[within]]
    bucket = buckets[number]
    order = _shuffled(len(bucket), seed_of(seed, epoch, number))
    return [bucket[order[place % len(bucket)]] for place in range(nth * size, (nth + 1) * size)]


def batch_indices(count: int, size: int, moment: int, seed: int) -> list[int]:
    """Indices of micro-batch `moment` in an endless stream of shuffled epochs of `count`."""
    orders: dict[int, list[int]] = {}
    indices = []
    for place in range(moment * size, (moment + 1) * size):
        epoch, within = divmod(place, count)
        if epoch not in orders:
            orders[epoch] = _shuffled(count, seed_of(seed, epoch))
        indices.append(orders[epoch][within])
    return indices


def _shuffled(count: int, seed: int) -> list[int]:
    import torch

    order: list[int] = torch.randperm(count, generator=generator(seed)).tolist()
    return order
