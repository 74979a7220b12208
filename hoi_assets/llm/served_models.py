"""The models that an endpoint lists, at no cost."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hoi_assets.llm.bounded_http import MIB, BodyTooLarge
from hoi_assets.llm.exchange import Exchange
from hoi_assets.llm.retry import EndpointError
from hoi_assets.settings import Endpoint

# Gateways list hundreds of models with their descriptions.
MAX_BODY_BYTES = 16 * MIB
# A server without this door: not found, method not allowed, not implemented.
NO_LIST = (404, 405, 501)


@dataclass(frozen=True)
class ServedModels:
    """What an endpoint lists.

    Attributes:
        names: of its models.
        open_to_all: whether it lists them without credentials, so that the key was not tried.
    """

    names: tuple[str, ...]
    open_to_all: bool


def list_models(options: Endpoint, section: str) -> ServedModels | None:
    """The models of an endpoint (`GET models`); None where it does not list them.

    Args:
        options, section: as for `EndpointClient`.

    Raises:
        HoiError: no endpoint, or a key that no header can hold.
        EndpointError: the key is refused, or the account has no credit.
        TransientError, Busy, RequestFailed: no answer, or none that can be used.
    """
    exchange = Exchange(options, section, "a models", _is_list, MAX_BODY_BYTES, lambda: False)

    def create(**_: Any) -> Any:
        return exchange.openai.models.with_raw_response.list()

    found, _ = exchange.ask(create, {})
    if isinstance(found, EndpointError) and found.status in NO_LIST:
        return None
    if isinstance(found, Exception):
        raise found
    named = (one.get("id") for one in found["data"] if isinstance(one, dict))
    names = tuple(exchange.redacted(name) for name in named if isinstance(name, str))
    return ServedModels(names, exchange.has_credentials and _lists_to_all(exchange))


def _lists_to_all(exchange: Exchange) -> bool:
    """Whether the list comes without credentials too; `exchange.http` sends none."""
    import httpx2

    url = f"{exchange.address.base_url.rstrip('/')}/models"
    try:
        return exchange.http.get(url).status_code == httpx2.codes.OK
    except (httpx2.HTTPError, BodyTooLarge):
        return False


def _is_list(body: Mapping[str, Any]) -> bool:
    return isinstance(body.get("data"), list)
