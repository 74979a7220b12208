"""One good profile with small models, and three that are broken in other ways each."""

import base64
import io
import json
from pathlib import Path
from typing import Any

from PIL import Image

from hoi_assets_tests.engines.small_judges import make_clip, make_image_reward, make_vilt
from hoi_assets_tests.engines.small_sd3 import make_sd3
from hoi_assets_tests.engines.small_sdxl import make_sdxl
from hoi_assets_tests.engines.test_model_fetch import REVISION
from hoi_assets_tests.llm.chat_server import KEY, Answer, Request, Server
from hoi_assets_tests.preflight.test_plan import CATEGORY, photo

GATED = "stable/gated-xl"
Expected = dict[tuple[str, str], tuple[str, str]]
Profile = dict[str, Any]


def make_models(folder: Path) -> Path:
    """Small models of every class, with random weights."""
    make_sdxl(folder / "sdxl")
    make_sd3(folder / "sd3")
    make_vilt(folder / "vilt")
    make_clip(folder / "clip")
    make_image_reward(folder / "image_reward")
    return folder


def sees_pictures(request: Request, number: int) -> Answer:
    """As a vision model would: the colour in the middle of the picture, else what is asked for."""
    content = request["messages"][-1]["content"]
    if isinstance(content, str):
        return Answer(content.split("Reply as ")[1].rstrip("."))
    url = next(part["image_url"]["url"] for part in content if part["type"] == "image_url")
    image = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))
    red = image.getpixel((image.width // 2, image.height // 2)) == (255, 0, 0)
    return Answer(json.dumps({"answer": "red" if red else "none"}))


def blind(request: Request, number: int) -> Answer:
    """As a text model behind a server that drops pictures."""
    content = request["messages"][-1]["content"]
    return sees_pictures(request, number) if isinstance(content, str) else Answer('{"answer": "?"}')


def chatty(request: Request, number: int) -> Answer:
    return Answer("Sure! The answer is red.", model="another-model")


def listed(authorization: str | None) -> Answer:
    """The models of a server that asks for a key; its owner calls it without one."""
    if authorization not in (f"Bearer {KEY}", "Bearer none"):
        return Answer(status=401)
    return Answer(body=json.dumps({"data": [{"id": "a-model"}, {"id": "an-image-model"}]}))


def good_profile(models: Path, folder: Path, server: Server) -> Profile:
    photos = folder / "photos" / CATEGORY
    photos.mkdir(parents=True)
    for number in range(5):
        photo(number, (96, 80)).save(photos / f"{number}.png")
    turned = Image.Exif()
    turned[274] = 6
    photo(7, (96, 80)).save(photos / "turned.jpg", exif=turned)
    (photos / "0.txt").write_text("a hand on a red button", "utf-8")
    server.files["/v1/models"] = listed
    chat = {"endpoint": server.url, "model": "a-model"}
    small = {"width": 64, "height": 64, "batch_size": 2}
    return {
        "models": {
            "base": {"source": str(models / "sdxl")},
            "verifier": {"source": str(models / "vilt")},
            "clip": {"source": str(models / "clip")},
            "image_reward": {"source": str(models / "image_reward")},
            "benchmark": {"source": str(models / "sd3")},
        },
        "prompter": {**chat, "vocabulary": "open"},
        "critic": chat,
        "judge": chat,
        "image_endpoint": {**chat, "model": "an-image-model", "usd_per_image": 0.04},
        "instance_images": {"folder": str(photos.parent)},
        "sampling": small,
        "redenoising": small,
        "verifier": {"labels_folder": str(folder / "labels")},
    }


def bare_machine(good: Profile, folder: Path, serve, models: Path) -> Expected:
    """Nothing fetched, no GPU, no server, no photos."""
    good["device"] = "cuda"
    good["models"]["base"] = {"source": GATED, "revision": REVISION}
    good["models"]["verifier"] = {"source": "data/models/full/vilt"}
    good["prompter"] |= {"endpoint": "http://127.0.0.1:9/v1"}
    good["instance_images"] = {"folder": str(folder / "nowhere")}
    return {
        ("models", "base"): ("is not on this machine", "hoi models fetch"),
        ("models", "verifier"): ("not found", "hoi models fetch"),
        ("licences", "base"): ("is gated", "accept the licence on"),
        ("device", "cuda"): ("torch sees no GPU", "device: cpu"),
        ("endpoints", "prompter"): ("no_connection", "start the server"),
        ("photos", "instance_images.folder"): ("no folder for 1 of 1", "make a folder"),
    }


def wrong_files(good: Profile, folder: Path, serve, models: Path) -> Expected:
    """Models of another class or shape, photos that nobody can train on."""
    good["models"]["verifier"] = {"source": str(models / "clip")}
    broken = folder / "clip"
    make_clip(broken)
    facts = json.loads((broken / "config.json").read_text("utf-8"))
    (broken / "config.json").write_text(json.dumps(facts | {"projection_dim": 17}), "utf-8")
    good["models"]["clip"] = {"source": str(broken)}
    good["critic"] = {"endpoint": serve(blind).url, "model": "text-only"}
    good["models"]["base"]["dtype"] = "float16"
    photos = folder / "photos" / CATEGORY
    for number in range(3):
        (photos / f"{number}.png").unlink()
    (photos / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(64))
    return {
        ("trainings", "lora"): ("as float16, in which training overflows", "set mixed_precision"),
        ("trainings", "finetuning"): ("as float16", "or the model's dtype to float32"),
        ("models", "verifier"): ("does not load as ViltForQuestionAnswering", ""),
        ("models", "clip"): ("text_projection.weight is (16, 32), wanted (17, 32)", ""),
        ("endpoints", "critic"): ("was shown a red picture", "takes pictures"),
        ("photos", CATEGORY): ("the gate wants 4", "put more pictures"),
    }


def wrong_services(good: Profile, folder: Path, serve, models: Path) -> Expected:
    """A server without structured output, a misspelt model, a cap without prices, another home."""
    good["judge"] = {"endpoint": serve(chatty).url, "model": "a-model"}
    good["prompter"] |= {"budget_usd": 5.0}
    good["image_endpoint"] |= {"model": "an-image-modle"}
    good["gates"] = {"min_prompts": 500}
    home = folder / "home"
    home.mkdir()
    (home / "home.json").write_text('{"profile": "other"}', "utf-8")
    return {
        ("home", str(home)): ("other", ""),
        ("endpoints", "judge"): ("gave no usable reply", "structured output"),
        ("endpoints", "prompter"): ("a price of a-model is not known", "set prompter.usd"),
        ("endpoints", "image_endpoint"): ("lists 2 models", "(0.04 USD)"),
        ("prompts", CATEGORY): ("the gate wants 500", "prompter.per_base_prompt"),
        ("prompts", "plan"): ("a price of a-model is not known", "set prompter.usd"),
    }


def nothing(good: Profile, folder: Path, serve, models: Path) -> Expected:
    return {}
