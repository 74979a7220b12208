"""Very small FLUX and Qwen-Image models on disk in the hub's layout, with random weights."""

import json
from pathlib import Path
from typing import Any

import torch

SIDE = 64


def _letters() -> list[str]:
    from tokenizers.pre_tokenizers import ByteLevel

    return sorted(ByteLevel.alphabet())


def _clip() -> dict[str, Any]:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    letters = _letters()
    words = [*letters, *(f"{one}</w>" for one in letters), "<|startoftext|>", "<|endoftext|>"]
    vocab = {word: index for index, word in enumerate(words)}
    config = CLIPTextConfig(
        vocab_size=len(vocab),
        hidden_size=16,
        intermediate_size=32,
        projection_dim=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=32,
        bos_token_id=vocab["<|startoftext|>"],
        eos_token_id=vocab["<|endoftext|>"],
        pad_token_id=vocab["<|endoftext|>"],
    )
    tokenizer = CLIPTokenizer(
        vocab=vocab, merges=[], model_max_length=32, pad_token="<|endoftext|>"
    )
    return {"text_encoder": CLIPTextModel(config), "tokenizer": tokenizer}


def _t5() -> dict[str, Any]:
    from transformers import T5Config, T5EncoderModel, T5Tokenizer

    pieces = ["<pad>", "</s>", "<unk>", "\u2581", *"abcdefghijklmnopqrstuvwxyz"]
    tokenizer = T5Tokenizer(vocab=[(piece, -float(n)) for n, piece in enumerate(pieces)])
    config = T5Config(
        vocab_size=len(tokenizer), d_model=24, d_kv=8, d_ff=32, num_layers=1, num_heads=2
    )
    return {"text_encoder_2": T5EncoderModel(config), "tokenizer_2": tokenizer}


def make_flux(folder: Path, kontext: bool = False) -> None:
    """FLUX.1-dev (guidance-distilled) or FLUX.1 Kontext."""
    from diffusers import (
        AutoencoderKL,
        FlowMatchEulerDiscreteScheduler,
        FluxKontextPipeline,
        FluxPipeline,
        FluxTransformer2DModel,
    )

    torch.manual_seed(0)
    cls = FluxKontextPipeline if kontext else FluxPipeline
    cls(
        transformer=FluxTransformer2DModel(
            patch_size=1,
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=24,
            pooled_projection_dim=16,
            guidance_embeds=True,
            axes_dims_rope=(4, 4, 8),
        ),
        vae=AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(8, 8, 8, 8),
            latent_channels=4,
            norm_num_groups=4,
            sample_size=SIDE,
            shift_factor=0.1,
            scaling_factor=0.4,
            use_quant_conv=False,
            use_post_quant_conv=False,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift=3.0),
        **_clip(),
        **_t5(),
    ).save_pretrained(folder)


def make_qwen_image(folder: Path, edit: bool = False) -> None:
    """Qwen-Image, or Qwen-Image-Edit, which has a processor besides."""
    from diffusers import (
        AutoencoderKLQwenImage,
        FlowMatchEulerDiscreteScheduler,
        QwenImagePipeline,
        QwenImageTransformer2DModel,
    )
    from transformers import (
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2Tokenizer,
    )

    torch.manual_seed(0)
    special = [
        "<|endoftext|>",
        "<|im_start|>",
        "<|im_end|>",
        "<|vision_start|>",
        "<|vision_end|>",
        "<|image_pad|>",
        "<|video_pad|>",
    ]
    letters = _letters()
    tokenizer = Qwen2Tokenizer(
        vocab={letter: number for number, letter in enumerate(letters)},
        merges=[],
        model_max_length=2048,
        additional_special_tokens=special[1:],
    )
    ids = {word: tokenizer.convert_tokens_to_ids(word) for word in special}
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "rope_scaling": {"mrope_section": [1, 1, 2], "rope_type": "default", "type": "default"},
        "max_position_embeddings": 4096,
    }
    config = Qwen2_5_VLConfig(
        text_config=text,
        vision_config={
            "depth": 1,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_heads": 2,
            "out_hidden_size": 16,
            "fullatt_block_indexes": [0],
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    parts: dict[str, Any] = {
        "transformer": QwenImageTransformer2DModel(
            patch_size=2,
            in_channels=16,
            out_channels=4,
            num_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=16,
            guidance_embeds=False,
            axes_dims_rope=(8, 4, 4),
        ),
        "vae": AutoencoderKLQwenImage(
            base_dim=8,
            z_dim=4,
            dim_mult=[1, 1, 1, 1],
            num_res_blocks=1,
            temperal_downsample=[False, True, True],
            latents_mean=[0.0] * 4,
            latents_std=[1.0] * 4,
        ),
        "scheduler": FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        "text_encoder": Qwen2_5_VLForConditionalGeneration(config),
        "tokenizer": tokenizer,
    }
    QwenImagePipeline(**parts).save_pretrained(folder)
    if edit:
        _add_processor(folder, tokenizer)


def _add_processor(folder: Path, tokenizer: Any) -> None:
    """The files of Qwen-Image-Edit's processor, as its repository has them."""
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    index |= {
        "_class_name": "QwenImageEditPipeline",
        "processor": ["transformers", "Qwen2VLProcessor"],
    }
    (folder / "model_index.json").write_text(json.dumps(index), encoding="utf-8")
    tokenizer.save_pretrained(folder / "processor")
    common = {
        **{"do_convert_rgb": True, "do_normalize": True, "do_rescale": True, "do_resize": True},
        **{"image_mean": [0.48145466, 0.4578275, 0.40821073], "merge_size": 2, "patch_size": 14},
        **{"image_std": [0.26862954, 0.26130258, 0.27577711], "resample": 3},
        **{"rescale_factor": 1 / 255, "temporal_patch_size": 2},
        # Released: 12845056; the pipeline shows it about 1024 by 1024.
        "size": {"shortest_edge": 3136, "longest_edge": 16 * 28 * 28},
        "processor_class": "Qwen2_5_VLProcessor",
    }
    own = {
        "preprocessor_config.json": {"image_processor_type": "Qwen2VLImageProcessorFast"},
        "video_preprocessor_config.json": {"video_processor_type": "Qwen2VLVideoProcessor"},
    }
    for name, facts in own.items():
        text = json.dumps(common | facts)
        (folder / "processor" / name).write_text(text, encoding="utf-8")
