"""The critic that the settings name, applied to images."""

from collections.abc import Sequence

from hoi_assets.detailscribe.critique import Critique, CritiqueRequest
from hoi_assets.detailscribe.endpoint_critic import EndpointCritic, critique_by_endpoint
from hoi_assets.detailscribe.vqa_critic import critique_by_vqa
from hoi_assets.errors import HoiError
from hoi_assets.progress import Log
from hoi_assets.settings import Settings
from hoi_assets.store.versions import Store


def critique_images(
    store: Store, settings: Settings, requests: Sequence[CritiqueRequest], log: Log
) -> list[Critique]:
    """The critique of each image, in their order; a cached one is not requested again.

    Raises:
        HoiError: no critic is set, or it cannot be used at all.
    """
    if settings.critic.endpoint is not None:
        return critique_by_endpoint(requests, EndpointCritic(settings.critic), store.ledger, log)
    if settings.models.critic is None:
        raise HoiError(
            "no critic is set", "name a VQA model under models.critic, or critic.endpoint"
        )
    return critique_by_vqa(store, settings, settings.models.critic, requests, log)
