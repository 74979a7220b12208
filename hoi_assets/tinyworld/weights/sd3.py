"""The tiny world's Stable Diffusion 3: transformer and two CLIP text encoders (no T5), in SD3's own
classes."""

import random
from pathlib import Path
from typing import Any

from hoi_assets.engines.sd3.loading import TOKENS_WITHOUT_T5
from hoi_assets.errors import HoiError
from hoi_assets.grammar.sentences import Noun, parse
from hoi_assets.grammar.vocabulary import COUNTS, OBJECTS, RELATIONS, SHAPES
from hoi_assets.tinyworld.weights import sdxl
from hoi_assets.tinyworld.weights.sdxl import WIDTH_1, WIDTH_2
from hoi_assets.tinyworld.weights.tokenizers import clip_tokenizer, token_ids
from hoi_assets.tinyworld.weights.vae import IMAGE_SIZE, LATENT_CHANNELS, LATENT_SIZE, build_vae
from hoi_assets.tinyworld.weights.words import caption_words, words_of

# A sentence with light and background that says all its components again has up to 55 tokens.
MAX_LENGTH = 64
LAYERS, HEADS, HEAD_WIDTH = 5, 5, 32
PATCH_SIZE = 2
# Of sampling alone, and SD3's own, so that a switch step stands for the noise that it stands for
# there. Training is not shifted: the shift makes up for 16 times as many latents as these
# (arXiv 2403.03206, section 5.3.2).
SHIFT = 3.0


def build_transformer() -> Any:
    """A fresh SD3Transformer2DModel for the two text encoders below."""
    import torch
    from diffusers import SD3Transformer2DModel

    transformer = SD3Transformer2DModel(
        sample_size=LATENT_SIZE,
        patch_size=PATCH_SIZE,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        num_layers=LAYERS,
        num_attention_heads=HEADS,
        attention_head_dim=HEAD_WIDTH,
        caption_projection_dim=HEADS * HEAD_WIDTH,
        joint_attention_dim=WIDTH_1 + WIDTH_2,
        pooled_projection_dim=WIDTH_1 + WIDTH_2,
        pos_embed_max_size=LATENT_SIZE // PATCH_SIZE,
        qk_norm="rms_norm",
    )
    with torch.no_grad():
        # A table, not learnt, but stored like a weight: as fp16.
        transformer.pos_embed.pos_embed.copy_(transformer.pos_embed.pos_embed.half().float())
    return transformer


def build_text_encoders(tokenizer: Any) -> tuple[Any, Any]:
    """Two fresh CLIPTextModelWithProjection for one vocabulary."""
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    def build(width: int, heads: int) -> Any:
        config = CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=3,
            num_attention_heads=heads,
            max_position_embeddings=MAX_LENGTH,
            projection_dim=width,
            hidden_act="gelu",
            bos_token_id=tokenizer.bos_token_id,
            # Without it the pooled output is the same for every text.
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        return CLIPTextModelWithProjection(config)

    return build(WIDTH_1, 3), build(WIDTH_2, 4)


def known_words() -> list[str]:
    """Every word that a caption of the tiny world, interactions included, can hold, sorted."""
    plurals = [Noun(kind, None, 2).phrase() for kind in OBJECTS]
    texts = [*COUNTS, *SHAPES, *RELATIONS, *plurals, "and that while the"]
    return sorted({*caption_words(), *(word for text in texts for word in words_of(text))})


def build_pipeline() -> Any:
    """A fresh StableDiffusion3Pipeline."""
    from diffusers import FlowMatchEulerDiscreteScheduler, StableDiffusion3Pipeline

    words = known_words()
    first = clip_tokenizer(words=words, max_length=MAX_LENGTH)
    second = clip_tokenizer(pad_token="!", words=words, max_length=MAX_LENGTH)
    text_encoder, _ = build_text_encoders(first)
    _, text_encoder_2 = build_text_encoders(second)
    pipeline = StableDiffusion3Pipeline(
        transformer=build_transformer(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=SHIFT),
        vae=None,
        text_encoder=text_encoder,
        tokenizer=first,
        text_encoder_2=text_encoder_2,
        tokenizer_2=second,
        text_encoder_3=None,
        tokenizer_3=None,
    )
    use_vae(pipeline, build_vae())
    return pipeline


def use_vae(pipeline: Any, vae: Any) -> None:
    """Give `pipeline` a VAE of the tiny SDXL, whose latents have mean 0: no shift."""
    vae.register_to_config(shift_factor=0.0)
    pipeline.register_modules(vae=vae)


def start_from_sdxl(pipeline: Any, other: Any) -> None:
    """Let the text encoders begin with what those of the tiny SDXL know.

    Tokens are matched by their text. Places beyond SDXL's last start as its last one.
    """
    import torch

    for part in ("text_encoder", "text_encoder_2"):
        tokenizers = [
            getattr(p, part.replace("text_encoder", "tokenizer")) for p in (pipeline, other)
        ]
        ours, theirs = (tokenizer.get_vocab() for tokenizer in tokenizers)
        both = sorted(ours.keys() & theirs.keys())
        target = getattr(pipeline, part).state_dict()
        # Without its projection the library names the same model's weights without this prefix.
        source = {
            name.removeprefix("text_model."): found
            for name, found in getattr(other, part).state_dict().items()
        }
        with torch.no_grad():
            for name, kept in target.items():
                found = source.get(name.removeprefix("text_model."))
                if found is None:
                    continue
                if name.endswith("token_embedding.weight"):
                    kept[[ours[token] for token in both]] = found[[theirs[token] for token in both]]
                elif name.endswith("position_embedding.weight"):
                    kept.copy_(torch.cat([found, found[-1:].expand(len(kept) - len(found), -1)]))
                elif found.shape == kept.shape:
                    kept.copy_(found)


def start_at_zero(transformer: Any) -> None:
    """Set first weights so that each block passes its input on and the output is zero (adaLN-Zero,
    arXiv 2212.09748, section 3.2): the library's own learn more slowly."""
    import torch

    with torch.no_grad():
        for name, parameter in transformer.named_parameters():
            modulates = name.startswith("transformer_blocks.") and ".linear." in name
            if modulates or name.startswith(("norm_out.linear.", "proj_out.")):
                parameter.zero_()


def stored(folder: Path) -> Any:
    """Stored weights in fp32, in a pipeline that knows neither its folder nor earlier calls.

    Raises:
        HoiError: nothing is stored there, or weights of another vocabulary.
    """
    import torch
    from diffusers import StableDiffusion3Pipeline

    if not (folder / "model_index.json").is_file():
        raise HoiError(
            f"no tiny sd3 in {folder}",
            "train it first: python -m hoi_assets.tinyworld.weights train sd3",
        )
    found = StableDiffusion3Pipeline.from_pretrained(
        folder, text_encoder_3=None, tokenizer_3=None, dtype=torch.float32
    )
    pipeline = build_pipeline()
    if found.tokenizer.get_vocab() != pipeline.tokenizer.get_vocab():
        raise HoiError(
            f"{folder} was trained with other words than hoi_assets/grammar has now",
            "train it anew: python -m hoi_assets.tinyworld.weights train sd3",
        )
    for part in ("vae", "transformer", "text_encoder", "text_encoder_2"):
        getattr(pipeline, part).load_state_dict(getattr(found, part).state_dict())
    pipeline.vae.register_to_config(scaling_factor=found.vae.config.scaling_factor)
    return pipeline


def encode_text(text_encoder: Any, text_encoder_2: Any, ids: Any, ids_2: Any) -> tuple[Any, Any]:
    """Text embeddings (B, T + 1, 224) and pooled embedding (B, 224), as the pipeline makes them."""
    import torch
    from torch.nn import functional

    first = text_encoder(ids, output_hidden_states=True)
    second = text_encoder_2(ids_2, output_hidden_states=True)
    embeds = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1)
    embeds = functional.pad(embeds, (0, 0, 0, TOKENS_WITHOUT_T5))
    return embeds, torch.cat([first.text_embeds, second.text_embeds], dim=-1)


def trainable(pipeline: Any) -> Any:
    """The parts that learn together: transformer and both text encoders."""
    from torch import nn

    # Plain attention: the fused kernel's backward pass is several times slower on a CPU.
    pipeline.text_encoder.set_attn_implementation("eager")
    pipeline.text_encoder_2.set_attn_implementation("eager")
    return nn.ModuleDict(
        {
            "transformer": pipeline.transformer,
            "text_encoder": pipeline.text_encoder,
            "text_encoder_2": pipeline.text_encoder_2,
        }
    )


def prompt_variants(pictures: Any, count: int) -> list[list[str]]:
    """Per picture `count` texts, its caption first; a false caption stays as it is.

    An interaction's caption is repeated with some of its components at the end, in any order, as in
    a corrected prompt; any other picture's is reworded.
    """
    return [
        _corrected(row, count) or sdxl.caption_variants(pictures.take([index]), count)[0]
        for index, row in enumerate(pictures.rows)
    ]


def _corrected(row: dict[str, Any], count: int) -> list[str]:
    """Variants of an interaction's caption; none for another picture."""
    components = parse(row["caption"])
    if components is None:
        return []
    rng = random.Random(int(row["seed"]))
    phrases = [f"{each.subject} {each.relation} {each.object}" for each in components]
    repeated = [rng.sample(phrases, rng.randint(1, len(phrases))) for _ in range(count - 1)]
    return [row["caption"], *(", ".join([row["caption"], *some]) for some in repeated)]


def loss_of(model: Any, pipeline: Any, pictures: Any, recipe: Any) -> Any:
    """The loss of a step: rectified flow (arXiv 2403.03206), squared error of the velocity from
    picture to noise, at times drawn from a logit-normal distribution.

    A tenth of the captions is dropped: the empty text stands for an absent negative prompt.
    """
    import torch
    from diffusers.training_utils import compute_density_for_timestep_sampling
    from torch.nn.attention import SDPBackend, sdpa_kernel

    from hoi_assets.tinyworld.weights.vae import encode

    count = int(recipe["wordings"])
    flat = [text for texts in prompt_variants(pictures, count) for text in texts]
    device = pictures.pixels.device
    ids, _ = token_ids(pipeline.tokenizer, [*flat, ""], MAX_LENGTH, device)
    ids_2, _ = token_ids(pipeline.tokenizer_2, [*flat, ""], MAX_LENGTH, device)
    vae = pipeline.vae.to(device)
    clean = encode(vae, pictures.pixels)[0] * vae.config.scaling_factor
    draw = _picture_sampler(pictures, recipe)

    def loss(generator: Any) -> Any:
        chosen = draw(generator)
        said = torch.randint(count, (len(chosen),), generator=generator)
        dropped = torch.rand(len(chosen), generator=generator) < recipe["caption_dropout"]
        text = torch.where(dropped, len(flat), torch.tensor(chosen) * count + said).to(device)
        latents = clean[chosen]
        noise = torch.randn(latents.shape, generator=generator).to(device)
        times = compute_density_for_timestep_sampling(
            "logit_normal", len(chosen), logit_mean=0.0, logit_std=1.0, generator=generator
        ).to(device)
        share = times.view(-1, 1, 1, 1)
        embeds, pooled = encode_text(
            model["text_encoder"], model["text_encoder_2"], ids[text], ids_2[text]
        )
        # Plain attention, as in `trainable`.
        with sdpa_kernel(SDPBackend.MATH):
            predicted = model["transformer"](
                hidden_states=(1 - share) * latents + share * noise,
                timestep=times * 1000,
                encoder_hidden_states=embeds,
                pooled_projections=pooled,
                return_dict=False,
            )[0]
        return (predicted.float() - (noise - latents)).square().mean()

    return loss


def _picture_sampler(pictures: Any, recipe: Any) -> Any:
    """Which pictures a step learns from: a stated share of the recipe's own split, the rest of any
    other."""
    import torch

    own = torch.tensor([row["split"] == recipe.split for row in pictures.rows])
    kinds = [kind for kind in (own.nonzero()[:, 0], (~own).nonzero()[:, 0]) if len(kind)]
    share = recipe["interactions_share"] if len(kinds) == 2 else 1.0

    def draw(generator: Any) -> list[int]:
        size = recipe.batch_size
        other = torch.rand(size, generator=generator) >= share
        places = torch.stack(
            [k[torch.randint(len(k), (size,), generator=generator)] for k in kinds]
        )
        return torch.where(other, places[-1], places[0]).tolist()

    return draw


def generate(
    pipeline: Any, prompts: list[str], seed: int = 0, guidance_scale: float = 4.5
) -> list[Any]:
    """One PIL picture per prompt, 28 steps, noise from (seed, place)."""
    import torch

    pipeline.set_progress_bar_config(disable=True)
    pictures: list[Any] = []
    for start in range(0, len(prompts), 16):
        batch = prompts[start : start + 16]
        noise = [torch.Generator().manual_seed(seed + start + n) for n in range(len(batch))]
        with torch.inference_mode():
            pictures += pipeline(
                batch,
                num_inference_steps=28,
                guidance_scale=guidance_scale,
                max_sequence_length=TOKENS_WITHOUT_T5,
                generator=noise,
                height=IMAGE_SIZE,
                width=IMAGE_SIZE,
            ).images
    return pictures
