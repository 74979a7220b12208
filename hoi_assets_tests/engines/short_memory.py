"""A device with little memory: a hook on a model asks for more than there is, so that torch's own
allocator refuses."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from hoi_assets.engines import model_cache

MORE_THAN_THERE_IS = 1 << 60


@contextmanager
def room_for(module: torch.nn.Module, images: int, guided: bool = True) -> Iterator[None]:
    """Inside, a forward pass of more images (twice as many rows with guidance) needs too much.

    A loaded model remembers what did not fit, so cached models are dropped at the end: a later test
    may load one of the same weights.
    """

    def hook(_: Any, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        rows = (inputs[0] if inputs else named["hidden_states"]).shape[0]
        if rows > images * (2 if guided else 1):
            torch.empty(MORE_THAN_THERE_IS)

    handle = module.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
        model_cache.clear()
