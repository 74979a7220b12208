"""The tiny world's CLIPModel: pictures and captions in one space."""

from pathlib import Path
from typing import Any

from hoi_assets.tinyworld.weights.tokenizers import MAX_LENGTH, clip_tokenizer
from hoi_assets.tinyworld.weights.vae import IMAGE_SIZE

WIDTH = 128


def build(tokenizer: Any) -> Any:
    """A fresh CLIPModel for the vocabulary of `tokenizer`."""
    from transformers import CLIPConfig, CLIPModel

    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": WIDTH,
        "intermediate_size": 4 * WIDTH,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": MAX_LENGTH,
        "bos_token_id": tokenizer.bos_token_id,
        # Without it the text feature is the same for every text.
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {
        "hidden_size": WIDTH,
        "intermediate_size": 4 * WIDTH,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "image_size": IMAGE_SIZE,
        "patch_size": 16,
    }
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=WIDTH))


def parts() -> tuple[Any, Any]:
    """Tokenizer and image processor."""
    from transformers import CLIPImageProcessorPil

    side = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": IMAGE_SIZE},
        crop_size=side,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    return clip_tokenizer(), processor


def save(model: Any, folder: Path) -> None:
    """Write fp16 weights, tokenizer and preprocessing."""
    tokenizer, processor = parts()
    model.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    processor.save_pretrained(folder)


def loss_of(model: Any, pictures: Any, recipe: Any) -> Any:
    """The loss of a step: contrastive over the batch; each picture's caption
    also stands against a false one."""
    import random

    import torch
    from torch.nn import functional

    from hoi_assets.engines.clip_score import CLIP_PREFIX
    from hoi_assets.tinyworld.weights.pictures import as_float, draw_indices, jitter
    from hoi_assets.tinyworld.weights.tokenizers import token_ids

    tokenizer = clip_tokenizer()

    def loss(generator: Any) -> Any:
        chosen = draw_indices(len(pictures), recipe.batch_size, generator)
        rng = random.Random(int(torch.randint(2**62, (1,), generator=generator)))
        seeds = [rng.randrange(2**31) for _ in chosen]
        texts = [pictures.true_caption(i, s) for i, s in zip(chosen, seeds, strict=True)]
        texts += [pictures.false_caption(i, s) for i, s in zip(chosen, seeds, strict=True)]
        if rng.random() < recipe["prefix_share"]:
            texts = [CLIP_PREFIX + text for text in texts]
        pixels = jitter(as_float(pictures.pixels[chosen]), generator)
        # Plain ids: the end token is found by its id, padding after it is not seen.
        ids, mask = token_ids(tokenizer, texts, device=pixels.device)
        out = model(input_ids=ids, attention_mask=mask, pixel_values=pixels)
        by_image = out.logits_per_image.float()
        place = torch.arange(len(chosen), device=pixels.device)
        return (
            functional.cross_entropy(by_image, place)
            + functional.cross_entropy(by_image[:, : len(chosen)].T, place)
        ) / 2

    return loss


def measure(model: Any, pictures: Any, seed: int = 0, count: int = 400) -> dict[str, float]:
    """Retrieval of a picture's caption among `count`, and of the true one from two, per kind."""
    import random

    import torch

    from hoi_assets.engines.clip_score import CLIP_PREFIX
    from hoi_assets.tinyworld.scenes.false_captions import FALSE_CLAIMS, false_claims_for
    from hoi_assets.tinyworld.weights.pictures import as_float
    from hoi_assets.tinyworld.weights.tokenizers import token_ids

    tokenizer, rng = clip_tokenizer(), random.Random(seed)
    chosen = sorted(rng.sample(range(len(pictures)), min(count, len(pictures))))

    def text_features(texts: list[str]) -> Any:
        prefixed = [CLIP_PREFIX + text for text in texts]
        ids, mask = token_ids(tokenizer, prefixed, device=pictures.pixels.device)
        found = model.get_text_features(input_ids=ids, attention_mask=mask).pooler_output
        return torch.nn.functional.normalize(found, dim=-1)

    with torch.inference_mode():
        images = torch.cat(
            [
                model.get_image_features(pixel_values=as_float(batch)).pooler_output
                for batch in pictures.pixels[chosen].split(64)
            ]
        )
        images = torch.nn.functional.normalize(images, dim=-1)
        texts = text_features([pictures.true_caption(i, None) for i in chosen])
        scores = images @ texts.T
        own = scores.diagonal()
        rank = (scores > own[:, None]).sum(dim=1)
        found = {
            f"recall_at_{k}_of_{len(chosen)}": float((rank < k).float().mean()) for k in (1, 10)
        }
        for kind in FALSE_CLAIMS:
            claimed = [
                n for n, i in enumerate(chosen) if kind in false_claims_for(pictures.slots(i))
            ]
            lies = text_features([_false_caption(pictures, chosen[n], kind) for n in claimed])
            beaten = own[claimed] > (images[claimed] * lies).sum(dim=-1)
            found[f"{kind}_accuracy"] = float(beaten.float().mean())
    return found


def _false_caption(pictures: Any, index: int, kind: str) -> str:
    """A false caption in the standard wording, so that only the false claim differs."""
    import random

    from hoi_assets.grammar.captions import caption
    from hoi_assets.tinyworld.scenes.false_captions import with_false_claim

    grips = list(pictures.grips.values())
    return caption(with_false_claim(pictures.slots(index), kind, random.Random(index), grips))
