"""Stores new images on a thread of its own, so that the next ones are drawn meanwhile."""

from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

from hoi_assets.store.versions import Store
from hoi_assets.taxonomy import ID_LENGTH

if TYPE_CHECKING:
    from PIL import Image

KIND = "image"
# A kind of its own: a version must not hold wall time, or equal inputs would give other hashes.
SECONDS_KIND = "image_seconds"
# By the pixels' digest. Records of earlier releases hold a `pixel_std` over all channels at once.
DEVIATION_KIND = "image_channel_deviation"
ENVIRONMENT = ("batch_size", "dtype", "device", "threads", "cpu_capability")


@dataclass(frozen=True)
class NewImage:
    """An image as it comes from the model, or the reason why there is none.

    Attributes:
        key: hash of all that determines it, except the environment.
        environment: what its bits depend on besides.
        seconds: wall time of generating it; None where not measured.
    """

    key: str
    slot: int
    image: "Image.Image | None"
    reason: str | None
    environment: Mapping[str, Any]
    seconds: float | None = None


class ImageWriter:
    """Encodes, stores and records images, in the order in which they are added.

    At most `save_every` of them wait; then `add` waits for the oldest. The end of the `with` block
    waits for all. An image that was stored is recorded whatever ends the block, so that it is not
    drawn again.

    Args:
        save_every: images that are recorded at a time.

    Attributes:
        recorded: the images' records in the ledger, by key.

    Raises:
        HoiError: from `add` or at the end of the block, as `ImageStore.put`: e.g. a full disk.
    """

    def __init__(self, store: Store, save_every: int) -> None:
        self.recorded: dict[str, Any] = {}
        self._store = store
        self._save_every = save_every
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="image-writer")
        self._waiting: deque[tuple[NewImage, Future[tuple[str, float]]]] = deque()
        self._stored: list[tuple[NewImage, str, float]] = []

    def __enter__(self) -> "ImageWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        failed = error
        while self._waiting:
            try:
                self._take_oldest()
            except Exception as another:
                # The first error is raised; each of the others says what failed besides.
                if failed is None:
                    failed = another
                elif failed is not another:
                    failed.add_note(f"storing another image failed too: {another}")
        self._thread.shutdown()
        self._record()
        if failed is not None and failed is not error:
            raise failed

    def add(self, one: NewImage) -> None:
        """Store an image, which must have one, and record it when its turn comes."""
        assert one.image is not None
        self._waiting.append((one, self._thread.submit(self._put, one.image)))
        while self._waiting and (
            len(self._waiting) > self._save_every or self._waiting[0][1].done()
        ):
            self._take_oldest()

    def _put(self, image: "Image.Image") -> tuple[str, float]:
        """Digest of the pixels, and the largest deviation of a channel."""
        from hoi_assets.pictures import channel_deviation

        return self._store.images.put(image), channel_deviation(image)

    def _take_oldest(self) -> None:
        one, stored = self._waiting.popleft()
        self._stored.append((one, *stored.result()))
        if len(self._stored) >= self._save_every:
            self._record()

    def _record(self) -> None:
        done, self._stored = self._stored, []
        ledger = self._store.ledger
        seconds = {
            one.key[:ID_LENGTH]: round(one.seconds, 3)
            for one, *_ in done
            if one.seconds is not None
        }
        ledger.put(SECONDS_KIND, seconds)
        ledger.put(DEVIATION_KIND, {pixels: deviation for _, pixels, deviation in done})
        self.recorded |= ledger.put(
            KIND,
            {
                one.key: {
                    "pixels": pixels,
                    "environment": {
                        "slot": one.slot,
                        **{name: one.environment[name] for name in ENVIRONMENT},
                    },
                }
                for one, pixels, _ in done
            },
        )
