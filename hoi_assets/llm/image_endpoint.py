"""Images from an OpenAI-compatible images API, each paid for once and cached.

The cache holds the image as the endpoint gave it. For the tables it is cropped at the centre to
their aspect ratio and scaled (Lanczos) to their size, so that it is scored like all others; a size
other than the requested one is recorded.
"""

import base64
import binascii
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hoi_assets.hashing import digest
from hoi_assets.llm.answers import count
from hoi_assets.llm.batch import request_all
from hoi_assets.llm.bounded_http import MIB
from hoi_assets.llm.budget import Budget, Charge, Usage
from hoi_assets.llm.client import EndpointClient
from hoi_assets.llm.picture_download import fetch_picture
from hoi_assets.llm.reply import OnReply, Reply, UnusableReply
from hoi_assets.llm.reply_cache import ReplyCache
from hoi_assets.progress import Log
from hoi_assets.settings import ImageEndpoint
from hoi_assets.store.images import DIGEST, ImageStore
from hoi_assets.store.versions import Store
from hoi_assets.taxonomy import ID_LENGTH

if TYPE_CHECKING:
    from PIL import Image

# The ledger's kind; its name is part of existing homes.
REPLY_KIND = "painted"
# Part of the key: raise it when images are requested in another way.
VERSION = "1"
FORMATS = ("PNG", "JPEG", "WEBP")
MIN_SIDE_PX, MAX_SIDE_PX = 64, 8192
# An answer holds a picture of up to 64 MiB in base64.
MAX_BODY_BYTES = 96 * MIB
DATA_URI = re.compile(r"data:[\w.+-]*/?[\w.+-]*(?:;[\w.+-]+=[^;,]*)*;base64,", re.IGNORECASE)
QUOTED_CHARACTERS, QUOTED_BYTES = 80, 20


@dataclass(frozen=True)
class EndpointImage:
    """A prompt's image, or the reason why there is none.

    Attributes:
        image_id: 16 hex digits, the hash of all that determines the image.
        pixels: digest of the image at the size of the tables; None where there is none.
        pixel_std: largest standard deviation of a colour channel (0..255).
        drawn_by: the model, the size requested, the size that came where it is another, and the
            size made of it.
        reason: `code: detail` where there is none.
        other_size: whether it came in another size than requested.
    """

    image_id: str
    pixels: str | None
    pixel_std: float | None
    drawn_by: str
    reason: str | None
    other_size: bool = False


class ImageClient(EndpointClient):
    """Requests one image per prompt.

    Args:
        images: where the images are stored.
        budget: see `EndpointClient`.

    Raises:
        HoiError: settings that cannot work, see `EndpointClient`; nothing is requested yet.
    """

    unusable_code = "no_picture"
    api = "an image"
    max_body_bytes = MAX_BODY_BYTES

    def __init__(
        self, options: ImageEndpoint, images: ImageStore, budget: Budget | None = None
    ) -> None:
        self.price, self.size = options.usd_per_image, options.size
        super().__init__(options, "image_endpoint", {"usd_per_image": self.price}, budget)
        self._images = images

    def key(self, prompt: str) -> str:
        """Hash of all that determines an image: 16 hex digits."""
        determined_by = {
            "prompt": prompt,
            "model": self.model,
            "endpoint": self.endpoint,
            "size": self.size,
            "seed": self.options.seed,
            **self.options.given("extra_body"),
            "version": VERSION,
        }
        return digest(determined_by)[:ID_LENGTH]

    def ask(
        self, prompts: Mapping[str, str], on_reply: OnReply[str], log: Log
    ) -> Mapping[str, Reply[str]]:
        """The digest of an image per prompt, by key; `on_reply` is called with each at once.

        Raises:
            EndpointError: the endpoint does not answer the first call, or refuses it.
        """
        if not prompts:
            return {}
        cost = None if self.price is None else self.price * len(prompts)
        what = f"{len(prompts)} pictures of {self.size} by {self.model} at {self.endpoint}"
        log(f"image endpoint: {self.estimate(what, cost)}")
        results = request_all(
            self,
            list(prompts.items()),
            lambda item, first: self._paint(item[1], first),
            lambda item, reply: on_reply(item[0], reply),
            "image endpoint",
            log,
        )
        return dict(zip(prompts, results, strict=True))

    def _paint(self, prompt: str, first: bool) -> Reply[str]:
        def attempt(unusable: UnusableReply | None, usage: Usage) -> str:
            # Written at once: many full-size images would fill the memory.
            return self._images.put(self._image(prompt, usage))

        return self.request(attempt, first)

    def _image(self, prompt: str, usage: Usage) -> "Image.Image":
        """One call, within the budget; the image as the endpoint gives it."""

        def create(**given: Any) -> Any:
            return self.exchange.openai.images.with_raw_response.generate(
                model=self.model,
                prompt=prompt,
                n=1,
                size=self.size,
                **given,
            )

        # Some models give base64 only, and do not know the option.
        options = {"response_format": "b64_json", **self.options.given("extra_body")}
        given = self.call(create, options, self.price or 0.0, usage)["data"][0]
        given = given if isinstance(given, dict) else {}
        text, url = given.get("b64_json"), given.get("url")
        if isinstance(text, str) and text:
            return decode_image(text)
        if not isinstance(url, str) or not url:
            raise UnusableReply("nothing instead of the picture (b64_json)", None)
        if DATA_URI.match(url):
            return decode_image(url)
        http, base_url = self.exchange.http, self.exchange.address.base_url
        return _read_image(fetch_picture(http, url, base_url, self.unusable_code))

    def _charge(self, answer: Mapping[str, Any]) -> Charge:
        usage = answer.get("usage")
        given = usage if isinstance(usage, dict) else {}
        return Charge(
            count(given.get("input_tokens")), count(given.get("output_tokens")), self.price
        )

    def _is_answer(self, body: Mapping[str, Any]) -> bool:
        return isinstance(body.get("data"), list) and bool(body["data"])


def generate_images(
    prompts: Sequence[str],
    client: ImageClient,
    store: Store,
    size: tuple[int, int],
    log: Log = print,
) -> list[EndpointImage]:
    """The endpoint's image of each prompt, in their order; equal prompts are requested once.

    Cached images are reused; one whose file is lost is requested again.

    Args:
        size: width and height of the images in the tables, in pixels.

    Raises:
        HoiError: the endpoint cannot be used at all; no call was wasted.
    """
    keys = [client.key(prompt) for prompt in prompts]
    _forget_lost(store, keys)
    cache = ReplyCache(store.ledger, REPLY_KIND, encode=str, decode=_pixel_digest, log=log)
    replies = cache.get_or_request(
        dict(zip(keys, prompts, strict=True)),
        lambda missing, on_reply: client.ask(missing, on_reply, log),
    )
    images = {key: _resized(store, key, reply, size, client.size) for key, reply in replies.items()}
    others = sum(image.other_size for image in images.values())
    if others:
        log(f"image endpoint: {others} pictures did not come in the requested size {client.size}")
    failed = sum(images[key].pixels is None for key in keys)
    spent = "price unknown" if client.price is None else f"{client.budget.spent_usd:.4f} USD spent"
    log(f"{len(keys)} pictures by {client.model}, {failed} failed, {spent}")
    return [images[key] for key in keys]


def crop_and_resize(image: "Image.Image", size: tuple[int, int]) -> "Image.Image":
    """The centre of an image at the aspect ratio of `size` (width, height), scaled to it; RGB."""
    from PIL import Image, ImageOps

    return ImageOps.fit(image.convert("RGB"), size, Image.Resampling.LANCZOS)


def decode_image(text: str) -> "Image.Image":
    """The image (PNG, JPEG or WebP) in base64, with or without a data URI's head, as RGB.

    Raises:
        UnusableReply: no readable image, or one with a side outside of 64 to 8192 px.
    """
    data = "".join(text.split())
    header = DATA_URI.match(data)
    data = data[header.end() :] if header else data
    try:
        raw = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise UnusableReply(f"broken base64: {error}", data[:QUOTED_CHARACTERS]) from None
    return _read_image(raw)


def _read_image(raw: bytes) -> "Image.Image":
    from PIL import Image, UnidentifiedImageError

    from hoi_assets.pictures import BROKEN, as_rgb

    try:
        with Image.open(io.BytesIO(raw), formats=FORMATS) as opened:
            # The header is enough to refuse an image that would fill the memory.
            if not MIN_SIDE_PX <= min(opened.size) <= max(opened.size) <= MAX_SIDE_PX:
                width, height = opened.size
                raise UnusableReply(
                    f"{width}x{height} px, sides of {MIN_SIDE_PX} to {MAX_SIDE_PX} are taken", ""
                )
            return as_rgb(opened)
    except UnidentifiedImageError as error:
        start = raw[:QUOTED_BYTES].decode("ascii", errors="replace")
        raise UnusableReply(f"no PNG, JPEG or WebP: it begins {start!r}", "") from error
    except (Image.DecompressionBombError, *BROKEN) as error:
        raise UnusableReply(f"no readable picture: {error}", "") from error


def _forget_lost(store: Store, keys: Sequence[str]) -> None:
    """Drop cached replies whose image file is gone."""
    cached = store.ledger.get(REPLY_KIND, keys)
    digests = {key: record["value"] for key, record in cached.items() if record["value"]}
    lost = set(store.images.missing(digests.values()))
    store.ledger.delete(REPLY_KIND, [key for key, pixels in digests.items() if pixels in lost])


def _resized(
    store: Store, key: str, reply: Reply[str], size: tuple[int, int], requested: str
) -> EndpointImage:
    from hoi_assets.pictures import channel_deviation

    made = f"{size[0]}x{size[1]}"
    if reply.value is None:
        drawn_by = f"{reply.model}, {requested} brought to {made}"
        return EndpointImage(key, None, None, drawn_by, reply.reason)
    image = store.images.open(reply.value)
    came = f"{image.width}x{image.height}"
    other = "" if came == requested else f" requested, {came} came,"
    drawn_by = f"{reply.model}, {requested}{other} brought to {made}"
    image = crop_and_resize(image, size)
    return EndpointImage(
        key, store.images.put(image), channel_deviation(image), drawn_by, None, bool(other)
    )


def _pixel_digest(value: Any) -> str:
    if not isinstance(value, str) or not DIGEST.fullmatch(value):
        raise ValueError(f"{value!r} is not an image digest")
    return value
