"""The processors of Qwen's vision models without their part for videos, which needs torchvision."""

import inspect
from typing import Any

from hoi_assets.engines.pipeline_files import naming_errors
from hoi_assets.settings import ModelRef
from hoi_assets.store.weights import local_folder

# As a pipeline's index names them; all prepare pictures alike.
WITH_VIDEOS = ("Qwen2VLProcessor", "Qwen2_5_VLProcessor", "Qwen3VLProcessor")


def read_picture_processor(ref: ModelRef, part: str, class_name: str) -> Any:
    """A pipeline's processor, for texts and pictures alone.

    Pictures are resized by Pillow whether or not torchvision is installed, so that they are the
    same on every machine.

    Args:
        part: its name in the pipeline, e.g. `processor`.
        class_name: one of WITH_VIDEOS.

    Raises:
        HoiError: its tokenizer or image processor cannot be read.
    """
    import transformers

    folder = local_folder(ref)
    where = str(folder or ref.source)
    place = {"revision": ref.revision} if folder is None else {"local_files_only": True}
    options: dict[str, Any] = {"subfolder": part, **place}
    with naming_errors(f"{where}/{part}", where):
        tokenizer = transformers.AutoTokenizer.from_pretrained(where, **options)
        pictures = transformers.Qwen2VLImageProcessorPil.from_pretrained(where, **options)
    return _without_videos(getattr(transformers, class_name))(pictures, tokenizer)


def tell_pictures_from_text(encoder: Any, image_token_id: int) -> None:
    """Have a vision model give the tokens of a picture their rows and columns as positions.

    From transformers 5 on it asks for `mm_token_type_ids`, which the processor returns and
    diffusers' Qwen-Image-Edit drops: a picture would be read as one long line, as the model was
    never trained.
    """

    def add(module: Any, args: Any, given: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        ids, known = given.get("input_ids"), given.get("mm_token_type_ids")
        if ids is not None and known is None and given.get("image_grid_thw") is not None:
            given["mm_token_type_ids"] = (ids == image_token_id).int()
        return args, given

    if "mm_token_type_ids" in inspect.signature(encoder.forward).parameters:
        encoder.register_forward_pre_hook(add, with_kwargs=True)


def _without_videos(cls: Any) -> Any:
    """A subclass that takes no video processor: the library reads the parts off its signature."""

    class PictureProcessor(cls):
        def __init__(self, image_processor: Any, tokenizer: Any) -> None:
            super().__init__(image_processor, tokenizer)

    # Diffusers asks a part's class which library it is of.
    PictureProcessor.__module__, PictureProcessor.__name__ = cls.__module__, cls.__name__
    return PictureProcessor
