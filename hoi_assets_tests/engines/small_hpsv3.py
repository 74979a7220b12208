"""A very small HPSv3 on disk, in the files and tensor names of its two hub repositories.

Everything follows from a seed by NumPy alone, so that another environment, with the library that
the published package was written for, makes the very same files (`hpsv3_reference.py`). The names
are those of transformers 4.45, with which `HPSv3.safetensors` was saved.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SEED = 3
HIDDEN, HEADS, KEY_VALUE_HEADS, LAYERS, FEED_FORWARD = 64, 4, 2, 3, 96
VISION, VISION_HEADS, VISION_LAYERS = 32, 2, 2
# Rows of the base model's embeddings beyond its tokenizer's words, as the released one has.
SPARE_ROWS = 7
CHECKPOINT = "HPSv3.safetensors"
SPECIAL = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>"),
    *("<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>"),
    *("<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"),
)
# Words of the published question and of PROMPTS, so that texts have hundreds of tokens.
MERGED = (
    *(
        "the",
        "and",
        "or",
        "of",
        "to",
        "with",
        "in",
        "if",
        "be",
        "is",
        "should",
        "any",
        "not",
        "are",
    ),
    *("image", "visual", "quality", "overall", "evaluate", "score", "rating", "prompt", "textual"),
    *("content", "elements", "subject", "specific", "style", "attribute", "scene", "evaluation"),
    *("Consistency", "Clarity", "Semantic", "Relevance", "Detail", "Aesthetic", "Creativity"),
    *("Evaluate", "Assess", "Consider", "such", "as", "how", "well", "hand", "cup", "light", "ing"),
)
CHAT_TEMPLATE = (
    "{% set image_count = namespace(value=0) %}{% set video_count = namespace(value=0) %}"
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n{% if message['content'] is string %}"
    "{{ message['content'] }}<|im_end|>\n{% else %}{% for content in message['content'] %}"
    "{% if content['type'] == 'image' or 'image' in content or 'image_url' in content %}"
    "{% set image_count.value = image_count.value + 1 %}{% if add_vision_id %}"
    "Picture {{ image_count.value }}: {% endif %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif 'text' in content %}{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PROMPTS = (
    "a left hand holds a cup",
    'Two hands tie a red ribbon, "slowly", 1234 times; café, naïve — 日本',
    "a hand",
    "the right hand of a potter shapes a bowl of wet clay on a wheel in the evening light " * 6,
    "",
    "An image: the SCORE, the rating!",
    "a person pours tea\n\nfrom a pot's   spout",
)
# Width and height: enlarged and reduced, upright and wide, odd, and already as wanted.
SIZES = ((512, 512), (640, 200), (97, 341), (448, 448), (33, 1201), (1000, 618), (60, 50))


def pictures() -> list[Image.Image]:
    """One picture of each of SIZES: waves, an edge and some noise, in whole numbers."""
    found = []
    for number, (width, height) in enumerate(SIZES):
        y, x = np.mgrid[0:height, 0:width].astype(np.int64)
        noise = np.random.default_rng(number).integers(0, 40, (height, width, 3))
        waves = np.stack(
            [(x * (3 + number) + y) % 256, (x * y // (7 + number)) % 256, (x // 9 * 31) % 256], -1
        )
        waves[height // 3 : height // 2, width // 4 : width // 2] = (250, 20 * number, 10)
        found.append(Image.fromarray(np.clip(waves + noise, 0, 255).astype(np.uint8)))
    found[1] = found[1].convert("L")
    found[2].putalpha(120)
    return found


def vocabulary() -> tuple[dict[str, int], list[str]]:
    """Words and merges of a byte-level BPE: all bytes, and MERGED with and without a space."""
    # GPT-2's printable stand-ins for bytes.
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    other = [byte for byte in range(256) if byte not in plain]
    letters = [chr(byte) for byte in plain] + [chr(256 + n) for n in range(len(other))]
    words, merges = list(letters), []
    for word in (form for one in MERGED for form in (one, chr(256 + other.index(32)) + one)):
        for end in range(2, len(word) + 1):
            merge = f"{word[: end - 1]} {word[end - 1]}"
            if merge not in merges:
                merges.append(merge)
                words.append(word[:end])
    return {word: number for number, word in enumerate(dict.fromkeys(words))}, merges


def write_processor(folder: Path) -> int:
    """Write the tokenizer, template and preprocessing of the base model; returns its words."""
    folder.mkdir(parents=True, exist_ok=True)
    vocab, merges = vocabulary()
    ids = {word: len(vocab) + number for number, word in enumerate(SPECIAL)}
    added = [
        {
            **{"id": number, "content": word, "single_word": False, "lstrip": False},
            **{"rstrip": False, "normalized": False, "special": True},
        }
        for word, number in ids.items()
    ]
    split = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    byte_level = {
        "type": "ByteLevel",
        **{"add_prefix_space": False, "trim_offsets": False, "use_regex": False},
    }
    steps = [
        {"type": "Split", "pattern": {"Regex": split}, "behavior": "Isolated", "invert": False},
        byte_level,
    ]
    tokenizer = {
        **{"version": "1.0", "truncation": None, "padding": None, "added_tokens": added},
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
        **{"post_processor": byte_level, "decoder": byte_level},
        "model": {
            **{"type": "BPE", "dropout": None, "unk_token": None, "fuse_unk": False},
            **{"continuing_subword_prefix": "", "end_of_word_suffix": "", "byte_fallback": False},
            **{"vocab": vocab, "merges": merges},
        },
    }
    mean = [0.48145466, 0.4578275, 0.40821073]
    std = [0.26862954, 0.26130258, 0.27577711]
    files: dict[str, Any] = {
        "config.json": _config(len(vocab) + len(SPECIAL) + SPARE_ROWS, ids),
        "tokenizer.json": tokenizer,
        "vocab.json": vocab,
        "tokenizer_config.json": {
            **{"add_prefix_space": False, "bos_token": None, "clean_up_tokenization_spaces": False},
            "added_tokens_decoder": {
                str(one["id"]): {key: value for key, value in one.items() if key != "id"}
                for one in added
            },
            "additional_special_tokens": list(SPECIAL[1:]),
            **{"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "padding_side": "left"},
            **{"errors": "replace", "model_max_length": 32768, "split_special_tokens": False},
            **{"tokenizer_class": "Qwen2Tokenizer", "unk_token": None},
            "chat_template": CHAT_TEMPLATE,
        },
        "chat_template.json": {"chat_template": CHAT_TEMPLATE},
        "preprocessor_config.json": {
            **{"min_pixels": 3136, "max_pixels": 12845056, "patch_size": 14},
            **{"temporal_patch_size": 2, "merge_size": 2, "image_mean": mean, "image_std": std},
            "image_processor_type": "Qwen2VLImageProcessor",
            "processor_class": "Qwen2VLProcessor",
        },
    }
    for name, content in files.items():
        text = json.dumps(content, ensure_ascii=False, indent=1)
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(merges) + "\n", encoding="utf-8")
    return len(vocab) + len(SPECIAL)


def _config(rows: int, ids: dict[str, int]) -> dict[str, Any]:
    """The base model's config.json, as flat as released."""
    return {
        "architectures": ["Qwen2VLForConditionalGeneration"],
        **{"attention_dropout": 0.0, "hidden_act": "silu", "initializer_range": 0.02},
        **{"bos_token_id": ids["<|endoftext|>"], "eos_token_id": ids["<|im_end|>"]},
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
        "vision_token_id": ids["<|vision_pad|>"],
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        **{"hidden_size": HIDDEN, "intermediate_size": FEED_FORWARD, "num_hidden_layers": LAYERS},
        **{"num_attention_heads": HEADS, "num_key_value_heads": KEY_VALUE_HEADS},
        **{"max_position_embeddings": 32768, "max_window_layers": LAYERS, "rms_norm_eps": 1e-6},
        **{"model_type": "qwen2_vl", "rope_theta": 1000000.0, "sliding_window": 32768},
        **{"tie_word_embeddings": False, "torch_dtype": "bfloat16", "use_cache": True},
        **{"use_sliding_window": False, "transformers_version": "4.41.2", "vocab_size": rows},
        "vision_config": {
            **{"depth": VISION_LAYERS, "embed_dim": VISION, "mlp_ratio": 4, "in_chans": 3},
            **{"num_heads": VISION_HEADS, "hidden_size": HIDDEN, "patch_size": 14},
            **{"spatial_merge_size": 2, "spatial_patch_size": 14, "temporal_patch_size": 2},
        },
        "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
    }


def weights(words: int) -> dict[str, np.ndarray]:
    """Tensors of HPSv3.safetensors by their released names, float32; `words` with <|Reward|>."""
    head_width = HIDDEN // HEADS
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (words, HIDDEN),
        "model.norm.weight": (HIDDEN,),
        "lm_head.weight": (words, HIDDEN),
        "visual.patch_embed.proj.weight": (VISION, 3, 2, 14, 14),
        "visual.merger.ln_q.weight": (VISION,),
        "visual.merger.ln_q.bias": (VISION,),
        **_linear("visual.merger.mlp.0", 4 * VISION, 4 * VISION),
        **_linear("visual.merger.mlp.2", HIDDEN, 4 * VISION),
        **_linear("rm_head.0", 1024, HIDDEN),
        **_linear("rm_head.3", 16, 1024),
        **_linear("rm_head.5", 2, 16),
    }
    for number in range(LAYERS):
        layer = f"model.layers.{number}."
        shapes |= {
            f"{layer}input_layernorm.weight": (HIDDEN,),
            f"{layer}post_attention_layernorm.weight": (HIDDEN,),
            **_linear(f"{layer}self_attn.q_proj", HIDDEN, HIDDEN),
            **_linear(f"{layer}self_attn.k_proj", KEY_VALUE_HEADS * head_width, HIDDEN),
            **_linear(f"{layer}self_attn.v_proj", KEY_VALUE_HEADS * head_width, HIDDEN),
            f"{layer}self_attn.o_proj.weight": (HIDDEN, HIDDEN),
            f"{layer}mlp.gate_proj.weight": (FEED_FORWARD, HIDDEN),
            f"{layer}mlp.up_proj.weight": (FEED_FORWARD, HIDDEN),
            f"{layer}mlp.down_proj.weight": (HIDDEN, FEED_FORWARD),
        }
    for number in range(VISION_LAYERS):
        block = f"visual.blocks.{number}."
        shapes |= {
            **{f"{block}norm{n}.{kind}": (VISION,) for n in (1, 2) for kind in ("weight", "bias")},
            **_linear(f"{block}attn.qkv", 3 * VISION, VISION),
            **_linear(f"{block}attn.proj", VISION, VISION),
            **_linear(f"{block}mlp.fc1", 4 * VISION, VISION),
            **_linear(f"{block}mlp.fc2", VISION, 4 * VISION),
        }
    rng = np.random.default_rng(SEED)
    return {name: _draw(rng, name, shapes[name]) for name in sorted(shapes)}


def _linear(name: str, rows: int, columns: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}


def _draw(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Layers that pass on what they get, whatever their width; norms near one."""
    values = rng.standard_normal(shape)
    if name.endswith(".bias"):
        values *= 0.1
    elif len(shape) == 1:
        values = 1 + 0.1 * values
    elif "embed_tokens" not in name:
        # Queries and keys large enough for attention to look somewhere.
        gain = 2.0 if any(one in name for one in ("q_proj", "k_proj", "qkv")) else 1.0
        values *= gain / np.sqrt(np.prod(shape[1:]))
    return values.astype(np.float32)


def make_hpsv3(folder: Path, processor: Path | None = None) -> Path:
    """Write HPSv3.safetensors into `folder`, and the base model's files into `processor`."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    words = write_processor(folder if processor is None else processor)
    save_file(weights(words + 1), folder / CHECKPOINT)
    return folder


def recipe_digest() -> str:
    """Hash of all tensors, files and pictures: scores of another recipe are not comparable."""
    words = len(vocabulary()[0]) + len(SPECIAL)
    total = hashlib.sha256()
    for name, values in weights(words + 1).items():
        total.update(name.encode() + values.tobytes())
    for picture, prompt in zip(pictures(), PROMPTS, strict=True):
        total.update(f"{picture.mode} {picture.size} {prompt}".encode() + picture.tobytes())
    total.update(CHAT_TEMPLATE.encode() + json.dumps(vocabulary()).encode())
    return total.hexdigest()
