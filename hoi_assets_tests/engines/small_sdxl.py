"""A very small SDXL on disk, with random weights: real classes, a second to make."""

from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw

from hoi_assets.engines.image_spec import Lora
from hoi_assets.engines.sdxl.loading import TEXT_ENCODERS, LoadedSDXL, load_sdxl
from hoi_assets.engines.sdxl.sampling import lora_digest
from hoi_assets.settings import ModelRef, Sampling

PROMPTS = ("a red ball", "a left hand holds a blue mug", "a green pen on a grey wall")


def make_sdxl(folder: Path, seed: int = 0) -> None:
    from diffusers import (
        AutoencoderKL,
        EulerDiscreteScheduler,
        StableDiffusionXLPipeline,
        UNet2DConditionModel,
    )
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import (
        CLIPTextConfig,
        CLIPTextModel,
        CLIPTextModelWithProjection,
        CLIPTokenizer,
    )

    torch.manual_seed(seed)
    letters = sorted(ByteLevel.alphabet())
    ends = [f"{letter}</w>" for letter in letters]
    words = [*letters, *ends, "<|startoftext|>", "<|endoftext|>"]
    vocab = {word: index for index, word in enumerate(words)}

    def tokenizer(pad: str) -> CLIPTokenizer:
        return CLIPTokenizer(vocab=vocab, merges=[], model_max_length=32, pad_token=pad)

    def text_config(width: int) -> CLIPTextConfig:
        return CLIPTextConfig(
            vocab_size=len(vocab),
            hidden_size=width,
            intermediate_size=2 * width,
            projection_dim=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=32,
            bos_token_id=vocab["<|startoftext|>"],
            eos_token_id=vocab["<|endoftext|>"],
            pad_token_id=vocab["<|endoftext|>"],
        )

    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=16 + 6 * 8,
        cross_attention_dim=16 + 24,
        norm_num_groups=8,
    )
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        latent_channels=4,
        norm_num_groups=4,
        sample_size=64,
        force_upcast=False,
    )
    StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(text_config(16)),
        text_encoder_2=CLIPTextModelWithProjection(text_config(24)),
        tokenizer=tokenizer("<|endoftext|>"),
        tokenizer_2=tokenizer("!"),
        unet=unet,
        scheduler=EulerDiscreteScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            timestep_spacing="trailing",
        ),
        add_watermarker=False,
    ).save_pretrained(folder)


@pytest.fixture(scope="session")
def sdxl_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "sdxl"
    make_sdxl(folder)
    return folder


@pytest.fixture
def loaded(sdxl_folder: Path) -> LoadedSDXL:
    """The model as a run has it, without LoRAs from other tests."""
    found = load_sdxl(ModelRef(source=str(sdxl_folder)))
    found.unload_adapters()
    return found


@pytest.fixture(scope="session")
def sampling() -> Sampling:
    return Sampling(width=64, height=64, num_inference_steps=3, batch_size=4)


def picture(colour: str, size: int = 64) -> Image.Image:
    image = Image.new("RGB", (size, size), "white")
    ImageDraw.Draw(image).ellipse((8, 8, size - 8, size - 8), fill=colour)
    return image


def random_lora(loaded: LoadedSDXL, folder: Path, seed: int, text_encoders: bool = False) -> Lora:
    """A LoRA with random weights (alpha twice the rank), saved by plain diffusers and peft.

    Args:
        text_encoders: whether it is one of both text encoders too.
    """
    from diffusers import StableDiffusionXLPipeline
    from diffusers.utils import convert_state_dict_to_diffusers
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    loaded.unload_adapters()
    torch.manual_seed(seed)
    parts = {}
    for name in ("unet", *(TEXT_ENCODERS if text_encoders else ())):
        network = getattr(loaded.pipe, name)
        targets = ["q_proj", "k_proj", "v_proj", "out_proj"]
        if name == "unet":
            targets = ["to_q", "to_k", "to_v", "to_out.0"]
        config = LoraConfig(r=2, lora_alpha=4, init_lora_weights=False, target_modules=targets)
        network.add_adapter(config, adapter_name="default")
        layers = get_peft_model_state_dict(network, adapter_name="default")
        parts[f"{name}_lora_layers"] = convert_state_dict_to_diffusers(layers)
        metadata = network.peft_config["default"].to_dict()
        parts[f"{name}_lora_adapter_metadata"] = metadata
    StableDiffusionXLPipeline.save_lora_weights(folder, **parts)
    loaded.unload_adapters()
    return Lora(str(folder), lora_digest(folder))
