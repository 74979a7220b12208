"""Small judges on disk, of the library's own classes with random weights."""

import copy
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SIDE = 32
WORDS = (
    *("a", "photo", "depicts", "red", "blue", "green", "ball", "box"),
    *("hand", "right", "left", "holds", "lifts", "with", "on", "wall"),
)
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
MAX_TOKENS = 12


def tokenizer():
    """A word-level tokenizer; every text is [CLS] words [SEP]."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: number for number, word in enumerate((*SPECIAL, *WORDS))}
    # The end token is last, as in CLIP's own vocabulary.
    vocabulary["[SEP]"] = len(vocabulary) - 1
    vocabulary[WORDS[-1]] = SPECIAL.index("[SEP]")
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        eos_token="[SEP]",
        model_max_length=MAX_TOKENS,
    )


def bert_tokenizer(folder: Path) -> Path:
    """A BERT's tokenizer, in the files that its hub repository has."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join((*SPECIAL, *WORDS, "##s")) + "\n", encoding="utf-8")
    facts = {"do_lower_case": True, "model_max_length": 512}
    (folder / "tokenizer_config.json").write_text(json.dumps(facts), encoding="utf-8")
    return folder


def picture(seed: int, size: tuple[int, int] = (SIDE, SIDE)) -> Image.Image:
    """Noise, different for each seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def private_copy(judge):
    """A copy of a loaded model that a test may change: the cache shares the model itself."""
    return replace(judge, model=copy.deepcopy(judge.model))


def make_vilt(folder: Path, labels: tuple[str, ...] = ("fidelity", "alignment")) -> Path:
    import torch
    from transformers import ViltConfig, ViltForQuestionAnswering, ViltImageProcessorPil

    torch.manual_seed(1)
    words = tokenizer()
    config = ViltConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=SIDE,
        patch_size=8,
        max_position_embeddings=MAX_TOKENS,
        initializer_range=0.2,
        id2label=dict(enumerate(labels)),
        label2id={label: number for number, label in enumerate(labels)},
    )
    model = ViltForQuestionAnswering(config)
    # The library starts positions at zero; a trained model has some.
    torch.nn.init.normal_(model.vilt.embeddings.position_embeddings, std=0.2)
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    ViltImageProcessorPil(size={"shortest_edge": SIDE}, size_divisor=8).save_pretrained(folder)
    return folder


def make_pretrained_vilt(folder: Path, sharded: bool = False) -> Path:
    """A ViLT for masked words, as `dandelin/vilt-b32-mlm` lies on the hub: `.bin`, no heads."""
    import torch
    from transformers import ViltConfig, ViltForMaskedLM, ViltImageProcessorPil

    torch.manual_seed(7)
    bert_tokenizer(folder)
    config = ViltConfig(
        vocab_size=len(SPECIAL) + len(WORDS) + 1,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        image_size=SIDE,
        patch_size=8,
        max_position_embeddings=MAX_TOKENS,
        initializer_range=0.2,
        architectures=["ViltForMaskedLM"],
    )
    config.save_pretrained(folder)
    ViltImageProcessorPil(size={"shortest_edge": SIDE}, size_divisor=8).save_pretrained(folder)
    state = ViltForMaskedLM(config).state_dict()
    if not sharded:
        torch.save(state, folder / "pytorch_model.bin")
        return folder
    names = sorted(state)
    places = {}
    for number, some in enumerate((names[::2], names[1::2]), start=1):
        file = f"pytorch_model-{number:05}-of-00002.bin"
        torch.save({name: state[name] for name in some}, folder / file)
        places |= dict.fromkeys(some, file)
    index = {"metadata": {"total_size": 1}, "weight_map": places}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index), encoding="utf-8")
    return folder


def make_clip(folder: Path, eos_token_id: int | None = None) -> Path:
    import torch
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(103)
    words = tokenizer()
    shape = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "initializer_range": 0.2,
    }
    text = shape | {
        "vocab_size": len(words),
        "max_position_embeddings": MAX_TOKENS,
        "bos_token_id": words.cls_token_id,
        "eos_token_id": words.eos_token_id if eos_token_id is None else eos_token_id,
        "pad_token_id": words.pad_token_id,
    }
    vision = shape | {"image_size": SIDE, "patch_size": 8}
    CLIPModel(
        CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)
    ).save_pretrained(folder)
    words.save_pretrained(folder)
    clip_processor().save_pretrained(folder)
    return folder


def clip_processor():
    from transformers import CLIPImageProcessorPil

    size = {"height": SIDE, "width": SIDE}
    return CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=size)


BLIP_VISION = {
    "hidden_size": 24,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": SIDE,
    "patch_size": 8,
    "layer_norm_eps": 1e-6,
    "initializer_range": 0.2,
}


def blip():
    """A BLIP whose text encoder is wider than its vision model, as ImageReward's is not alike."""
    import torch
    from transformers import BlipConfig, BlipForImageTextRetrieval

    torch.manual_seed(3)
    text = {
        "vocab_size": len(tokenizer()),
        "hidden_size": 32,
        "encoder_hidden_size": 24,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": MAX_TOKENS,
        "layer_norm_eps": 1e-12,
        "initializer_range": 0.2,
    }
    model = BlipForImageTextRetrieval(BlipConfig(vision_config=BLIP_VISION, text_config=text))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            # Away from the ones and zeros of a fresh model, where mixed-up keys would not show.
            if name.endswith("bias") or "norm" in name.lower():
                weight.add_(0.2 * torch.randn_like(weight))
    return model.eval()


def make_image_reward(folder: Path) -> Path:
    import torch

    from hoi_assets.engines.image_reward import ImageRewardModel, build_head, save_image_reward

    torch.manual_seed(4)
    reward = ImageRewardModel(
        blip=blip(),
        head=build_head((32, 16, 8, 8, 4, 1)),
        tokenizer=tokenizer(),
        image_processor=clip_processor(),
        mean=0.25,
        std=0.5,
        max_text_tokens=10,
    )
    return save_image_reward(reward, folder)


EXAMINER_LABELS = (
    "pose:hook",
    "pose:tripod",
    "object:ball",
    "object:box",
    "colour:red",
    "colour:blue",
    "side:left",
    "side:right",
    "side:both",
    "defect:extra_finger",
    "defect:floating",
    "clean",
)


def make_examiner(folder: Path, labels: tuple[str, ...] = EXAMINER_LABELS) -> Path:
    import torch
    from transformers import ResNetConfig, ResNetForImageClassification, ViTImageProcessorPil

    torch.manual_seed(5)
    config = ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 16],
        depths=[1, 1],
        layer_type="basic",
        problem_type="multi_label_classification",
        id2label=dict(enumerate(labels)),
        label2id={label: number for number, label in enumerate(labels)},
    )
    ResNetForImageClassification(config).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def vilt_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_vilt(tmp_path_factory.mktemp("vilt"))


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="session")
def image_reward_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_image_reward(tmp_path_factory.mktemp("image_reward"))


@pytest.fixture(scope="session")
def examiner_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_examiner(tmp_path_factory.mktemp("examiner"))
