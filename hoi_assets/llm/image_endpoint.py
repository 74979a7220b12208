"""An image endpoint's pictures of prompts (OpenAI images API), each paid for once and kept.

What is kept is the picture as the endpoint gave it. For the tables it is cropped at the centre to
their aspect ratio and scaled (Lanczos) to their size, so that it is scored like all others.
"""

import base64
import binascii
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hoi_assets.hashing import digest
from hoi_assets.llm.budget import Budget
from hoi_assets.llm.client import Bill, Caller, Transient, Unusable, Usage, ask_all
from hoi_assets.llm.reply_cache import Keep, Outcome, found_or_asked
from hoi_assets.progress import Log
from hoi_assets.settings import ImageEndpoint
from hoi_assets.store.images import DIGEST, ImageStore
from hoi_assets.store.versions import Store
from hoi_assets.taxonomy import ID_LENGTH

if TYPE_CHECKING:
    from PIL import Image

KIND = "painted"
# Raised when pictures are asked for in another way.
VERSION = "1"
FORMATS = ("PNG", "JPEG", "WEBP")
MIN_SIDE_PX, MAX_SIDE_PX = 64, 8192
QUOTED_CHARACTERS, BEGIN_BYTES = 80, 20


@dataclass(frozen=True)
class Painted:
    """A prompt's picture, or the reason why there is none.

    Attributes:
        image_id: 16 hex digits, the hash of all that determines the picture.
        pixels: digest of the picture at the size of the tables; None where there is none.
        pixel_std: standard deviation of its values (0..255).
        drawn_by: the model, and the sizes asked for and made of it.
        reason: `code: detail` where there is none.
    """

    image_id: str
    pixels: str | None
    pixel_std: float | None
    drawn_by: str
    reason: str | None


def paint(
    prompts: Sequence[str],
    painter: "EndpointPainter",
    store: Store,
    size: tuple[int, int],
    log: Log = print,
) -> list[Painted]:
    """The endpoint's picture of each prompt, in their order; equal prompts are asked once.

    Pictures are found again by the ledger; one whose file is lost is asked for again.

    Args:
        size: width and height that the pictures are brought to, in pixels.

    Raises:
        HoiError: the endpoint cannot be used at all; nothing was asked in vain.
    """
    keys = [painter.key(prompt) for prompt in prompts]
    _forget_lost(store, keys)
    outcomes = found_or_asked(
        store.ledger,
        KIND,
        dict(zip(keys, prompts, strict=True)),
        lambda missing, keep: painter.ask(missing, keep, log),
        dump=str,
        load=_digest,
        log=log,
    )
    drawn_by = f"{painter.model}, {painter.size} brought to {size[0]}x{size[1]}"
    made = {key: _brought(store, key, outcomes[key], size, drawn_by) for key in outcomes}
    failed = sum(made[key].pixels is None for key in keys)
    spent = (
        "price unknown" if painter.price is None else f"{painter.budget.spent_usd:.4f} USD spent"
    )
    log(f"{len(keys)} pictures by {painter.model}, {failed} failed, {spent}")
    return [made[key] for key in keys]


def brought_to(image: "Image.Image", size: tuple[int, int]) -> "Image.Image":
    """The middle of a picture at the aspect ratio of `size` (width, height), scaled to it; RGB."""
    from PIL import Image, ImageOps

    return ImageOps.fit(image.convert("RGB"), size, Image.Resampling.LANCZOS)


def read_picture(text: str) -> "Image.Image":
    """The picture (PNG, JPEG or WebP) in base64, as RGB.

    Raises:
        Unusable: it is none, or one too large or too small to be meant.
    """
    from PIL import Image, UnidentifiedImageError

    from hoi_assets.pictures import BROKEN, as_rgb

    data = "".join(text.split())
    try:
        raw = base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Unusable(f"broken base64: {error}", data[:QUOTED_CHARACTERS]) from error
    try:
        with Image.open(io.BytesIO(raw), formats=FORMATS) as opened:
            # The header is enough to refuse a picture that would fill the memory.
            if not MIN_SIDE_PX <= min(opened.size) <= max(opened.size) <= MAX_SIDE_PX:
                width, height = opened.size
                raise Unusable(
                    f"{width}x{height} px, sides of {MIN_SIDE_PX} to {MAX_SIDE_PX} are taken", ""
                )
            return as_rgb(opened)
    except UnidentifiedImageError as error:
        begin = raw[:BEGIN_BYTES].decode("ascii", errors="replace")
        raise Unusable(f"no PNG, JPEG or WebP: it begins {begin!r}", "") from error
    except (Image.DecompressionBombError, *BROKEN) as error:
        raise Unusable(f"no readable picture: {error}", "") from error


class EndpointPainter(Caller):
    """Asks an image endpoint for one picture of a prompt.

    Args:
        images: where the pictures are kept.
        budget: see `Caller`.

    Raises:
        HoiError: settings that cannot work, see `Caller`; nothing is asked yet.
    """

    unusable = "no_picture"

    def __init__(
        self, options: ImageEndpoint, images: ImageStore, budget: Budget | None = None
    ) -> None:
        self.price, self.size = options.usd_per_image, options.size
        super().__init__(options, "image_endpoint", {"usd_per_image": self.price}, budget)
        self._images = images

    def key(self, prompt: str) -> str:
        """Hash of all that determines a picture: 16 hex digits."""
        determined_by = {
            "prompt": prompt,
            "model": self.model,
            "endpoint": self.endpoint,
            "size": self.size,
            "seed": self.options.seed,
            "version": VERSION,
        }
        return digest(determined_by)[:ID_LENGTH]

    def ask(
        self, prompts: Mapping[str, str], keep: Keep[str], log: Log
    ) -> Mapping[str, Outcome[str]]:
        """The digest of a picture per prompt, by key; `keep` is called with each at once.

        Raises:
            EndpointError: the endpoint does not answer the first call, or refuses it.
        """
        if not prompts:
            return {}
        cost = None if self.price is None else self.price * len(prompts)
        what = f"{len(prompts)} pictures of {self.size} by {self.model} at {self.endpoint}"
        log(f"painter: {self.said_before(what, cost)}")
        outcomes = ask_all(
            self,
            list(prompts.items()),
            lambda item, first: self._outcome(item[1], first),
            lambda item, outcome: keep(item[0], outcome),
            "painter",
            log,
        )
        return dict(zip(prompts, outcomes, strict=True))

    def _outcome(self, prompt: str, first: bool) -> Outcome[str]:
        usage = Usage()

        def attempt(problem: Unusable | None) -> str:
            # At once to disk: many pictures at full size would fill the memory.
            return self._images.put(self._picture(prompt, usage))

        return Outcome.of(self.answer(attempt, usage, first), self.model)

    def _picture(self, prompt: str, usage: Usage) -> "Image.Image":
        """One call, within the budget; the picture as the endpoint gives it."""

        def create(**given: Any) -> Any:
            return self._client.images.generate(
                model=self.model,
                prompt=prompt,
                n=1,
                size=self.size,
                **given,
            )

        # Some models give base64 alone, and do not know the option.
        options = {"response_format": "b64_json"}
        response = self.call(create, options, self.price or 0.0, usage, self._bill)
        data = getattr(response, "data", None)
        if not isinstance(data, list) or not data:
            raise self._foreign(str(response))
        text = getattr(data[0], "b64_json", None)
        if not isinstance(text, str) or not text:
            what = "a URL" if getattr(data[0], "url", None) else "nothing"
            raise Unusable(f"{what} instead of the picture (b64_json)", "")
        return read_picture(text)

    def _bill(self, response: Any) -> Bill:
        told = getattr(response, "usage", None)
        return (
            getattr(told, "input_tokens", None),
            getattr(told, "output_tokens", None),
            self.price,
        )

    def _foreign(self, said: str) -> Exception:
        # Servers under load answer with pages of all sorts; one that always does is told by then.
        quoted = self._public(said)[:QUOTED_CHARACTERS]
        return Transient(f"no_picture: answered, but not as an image endpoint: {quoted!r}")


def _forget_lost(store: Store, keys: Sequence[str]) -> None:
    made = store.ledger.get(KIND, keys)
    digests = {key: record["value"] for key, record in made.items()}
    lost = set(store.images.missing(digests.values()))
    store.ledger.delete(KIND, [key for key, pixels in digests.items() if pixels in lost])


def _brought(
    store: Store, key: str, outcome: Outcome[str], size: tuple[int, int], drawn_by: str
) -> Painted:
    import numpy as np

    if outcome.value is None:
        return Painted(key, None, None, drawn_by, outcome.reason)
    image = brought_to(store.images.open(outcome.value), size)
    spread = round(float(np.asarray(image).std()), 3)
    return Painted(key, store.images.put(image), spread, drawn_by, None)


def _digest(value: Any) -> str:
    if not isinstance(value, str) or not DIGEST.fullmatch(value):
        raise ValueError(f"{value!r} names no picture")
    return value
