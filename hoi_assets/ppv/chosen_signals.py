"""The signals that the settings name, reading pictures of the store."""

from collections.abc import Mapping, Sequence

from hoi_assets.engines.hand_landmarks import cached_presence
from hoi_assets.llm.hand_anatomy import EndpointAnatomy, ask_anatomy
from hoi_assets.llm.shown_image import ShownImage
from hoi_assets.ppv.signals import Signal, SignalValue
from hoi_assets.progress import Log
from hoi_assets.settings import Anatomy, Landmarks, Settings, resolve_path
from hoi_assets.store.versions import Store

NO_HAND = "no_hand: the detector finds no palm"


def chosen_signals(store: Store, settings: Settings, log: Log) -> list[Signal]:
    """Empty where none is set.

    Raises:
        HoiError: a section cannot work, e.g. an endpoint without a model.
    """
    found = []
    if settings.anatomy is not None:
        found.append(_anatomy(store, settings.anatomy, log))
    if settings.landmarks is not None:
        found.append(_landmarks(store, settings.landmarks, log))
    return found


def _anatomy(store: Store, options: Anatomy, log: Log) -> Signal:
    judge = EndpointAnatomy(options)

    def read(pixels: Sequence[str]) -> Mapping[str, SignalValue]:
        shown = [ShownImage.of_store(store, one) for one in dict.fromkeys(pixels)]
        return {
            one.pixels: SignalValue(one.p_whole, one.defect, one.reason, one.cost_usd)
            for one in ask_anatomy(shown, judge, store.ledger, log)
        }

    return Signal("anatomy", options, read)


def _landmarks(store: Store, options: Landmarks, log: Log) -> Signal:
    folder = resolve_path(options.folder)

    def read(pixels: Sequence[str]) -> Mapping[str, SignalValue]:
        found = cached_presence(store, folder, pixels, log)
        return {
            one: SignalValue(value, reason=None if value is not None else NO_HAND)
            for one, value in found.items()
        }

    return Signal("landmarks", options, read)
