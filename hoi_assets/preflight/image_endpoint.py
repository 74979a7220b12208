"""Whether the image endpoint is reachable, takes the key and has the model.

A picture is the expensive call of this API, so its list of models is asked for, which costs
nothing. Where that leaves something open, one picture can be drawn on request.
"""

import time
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from hoi_assets.preflight.findings import Finding, ok, problem, warning
from hoi_assets.settings import ImageEndpoint

if TYPE_CHECKING:
    from hoi_assets.llm.image_endpoint import ImageClient
    from hoi_assets.store.images import ImageStore

SECTION = "image_endpoint"
PROMPT = "A red ball on a wooden table."
SHOWN = 5


def check_image_endpoint(options: ImageEndpoint, draw: bool) -> Iterator[Finding]:
    """The endpoint's list of models, or one picture.

    Args:
        draw: let it draw one picture at its price; it is thrown away.

    Raises:
        HoiError: the endpoint cannot be used.
    """
    from hoi_assets.llm.image_endpoint import ImageClient
    from hoi_assets.store.images import ImageStore

    once = options.model_copy(update={"max_attempts": 1})
    with TemporaryDirectory() as folder:
        images = ImageStore(Path(folder) / "images", Path(folder))
        client = ImageClient(once, images)
        yield _drawn(client, images) if draw else _listed(client)


def _listed(client: "ImageClient") -> Finding:
    from hoi_assets.llm.retry import Busy, RequestFailed, TransientError
    from hoi_assets.llm.served_models import list_models

    place = f"{client.model} at {client.endpoint}"
    try:
        served = list_models(client.options, SECTION)
    except Busy as error:
        return warning("endpoints", SECTION, f"{place} is busy: {error}", "run this again later")
    except (TransientError, RequestFailed) as error:
        return problem(
            "endpoints",
            SECTION,
            f"{SECTION}.endpoint {client.endpoint}: {error}",
            f"start the server or correct {SECTION}.endpoint (most end in /v1)",
        )
    draw = f"`hoi doctor --draw` draws one picture ({_price(client)})"
    if served is None:
        what = f"{place}: answers, but lists no models: neither key nor model were checked"
        return warning("endpoints", SECTION, what, draw)
    if client.model not in served.names:
        what = (
            f"{client.endpoint} lists {len(served.names)} models, {client.model!r} not among them"
        )
        return problem(
            "endpoints",
            SECTION,
            f"{what}{_some(client.model, served.names)}",
            f"correct {SECTION}.model; where the list is not whole, {draw}",
        )
    if served.open_to_all:
        what = f"{place}: listed, to calls without a key too: the key was not checked"
        return warning("endpoints", SECTION, what, draw)
    return ok("endpoints", SECTION, f"{place}: listed; no picture was drawn")


def _some(model: str, names: tuple[str, ...]) -> str:
    """The listed names most like the one asked for, else the first ones."""
    near = get_close_matches(model, names, n=SHOWN) or names[:SHOWN]
    return f": {', '.join(near)}{', …' if len(names) > len(near) else ''}" if near else ""


def _price(client: "ImageClient") -> str:
    if client.price is None:
        return f"price unknown, {SECTION}.usd_per_image is not set"
    return f"{client.price:g} USD"


def _drawn(client: "ImageClient", images: "ImageStore") -> Finding:
    place = f"{client.model} at {client.endpoint}"
    started = time.monotonic()
    reply = client.ask({"": PROMPT}, lambda *_: None, lambda _: None)[""]
    seconds = time.monotonic() - started
    if reply.value is None:
        return problem(
            "endpoints",
            SECTION,
            f"{place} drew no picture: {reply.reason}",
            f"correct {SECTION}.model or {SECTION}.size, or name another endpoint",
        )
    width, height = images.open(reply.value).size
    drew = f"{place}: drew {width}x{height} px in {seconds:.0f} s, {_price(client)}"
    if reply.model != client.model:
        return warning(
            "endpoints",
            SECTION,
            f"{drew}, but {reply.model!r} answered",
            f"name that model in {SECTION}.model, so that tables name what was used",
        )
    if f"{width}x{height}" != client.size:
        return warning(
            "endpoints",
            SECTION,
            f"{drew}, but {client.size} was requested",
            f"set {SECTION}.size to a size the model draws; others are cropped and scaled",
        )
    return ok("endpoints", SECTION, drew)
