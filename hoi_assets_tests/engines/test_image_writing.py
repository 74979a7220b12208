"""Images are stored while the next ones are drawn: same records, and nothing that is done is lost.

Real pictures, store and threads; errors are real too: a folder that is a file, a picture that is
none."""

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hoi_assets.engines.image_cache import StoredImage, get_or_generate
from hoi_assets.engines.image_writing import ENVIRONMENT, KIND, ImageWriter, NewImage
from hoi_assets.errors import HoiError
from hoi_assets.store.versions import Store

FACTS = dict.fromkeys(ENVIRONMENT, 1)
KEYS = [f"{n:064x}" for n in range(7)]


def picture(seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (48, 48, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def new(number: int) -> NewImage:
    return NewImage(KEYS[number], number, picture(number), None, FACTS, seconds=number / 10)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "home")


def generate(store: Store, images: Iterator[NewImage], every: int = 2) -> dict[str, StoredImage]:
    return get_or_generate(
        store, {key: key for key in KEYS}, lambda todo: images, every, "test", lambda line: None
    )


def test_images_are_stored_on_another_thread_in_order(store: Store) -> None:
    """The thread waits until the next image is made: alone, it would wait forever."""
    threads, order = set(), list[int]()
    next_is_made = [threading.Event() for _ in KEYS]
    put = store.images.put

    def watched(image: Image.Image) -> str:
        number = len(order)
        order.append(number)
        threads.add(threading.current_thread().name)
        assert next_is_made[number].wait(30), "the next image is not made meanwhile"
        return put(image)

    def made() -> Iterator[NewImage]:
        for number in range(len(KEYS)):
            yield new(number)
            next_is_made[number].set()

    store.images.put = watched  # type: ignore[method-assign]
    found = generate(store, made())
    assert order == list(range(len(KEYS)))
    assert len(threads) == 1 and threading.current_thread().name not in threads
    assert list(found) == KEYS
    plain = Store(store.home.parent / "other")
    assert [one.pixels for one in found.values()] == [
        plain.images.put(picture(n)) for n in range(len(KEYS))
    ]
    assert [one.environment["slot"] for one in found.values()] == list(range(len(KEYS)))


def test_no_more_images_wait_than_are_recorded_at_a_time(store: Store) -> None:
    made, release = list[int](), threading.Event()
    put = store.images.put

    def slow(image: Image.Image) -> str:
        assert release.wait(10)
        return put(image)

    store.images.put = slow  # type: ignore[method-assign]

    def images() -> Iterator[NewImage]:
        for number in range(len(KEYS)):
            made.append(number)
            if number == 2:  # the first is being stored, the second waits
                threading.Timer(0.2, release.set).start()
            yield new(number)
            assert number < 2 or release.is_set(), "images pile up"

    assert len(generate(store, images(), every=2)) == len(made) == len(KEYS)


def test_an_image_that_cannot_be_stored_is_named_and_the_others_are_kept(store: Store) -> None:
    blocked = store.images.path(Store(store.home.parent / "other").images.put(picture(2)))
    blocked.parent.parent.mkdir(parents=True, exist_ok=True)
    blocked.parent.write_text("a file where a folder is needed", encoding="utf-8")
    with pytest.raises(HoiError, match=f"cannot write .*{blocked.parent.name}") as error:
        generate(store, (new(number) for number in range(len(KEYS))))
    assert isinstance(error.value.__cause__, OSError)
    kept = set(store.ledger.get(KIND, KEYS))
    assert {KEYS[0], KEYS[1]} <= kept and KEYS[2] not in kept
    blocked.parent.unlink()
    asked: list[Sequence[str]] = []

    def again(todo: Sequence[str]) -> Iterator[NewImage]:
        asked.append(list(todo))
        return (new(KEYS.index(key)) for key in todo)

    found = get_or_generate(store, {k: k for k in KEYS}, again, 2, "test", lambda line: None)
    assert asked == [[key for key in KEYS if key not in kept]]
    assert all(one.pixels for one in found.values())


@pytest.mark.parametrize("stop", [RuntimeError, KeyboardInterrupt])
def test_images_made_before_an_error_are_recorded(store: Store, stop: type[BaseException]) -> None:
    def images() -> Iterator[NewImage]:
        for number in range(5):
            yield new(number)
        raise stop("the device is gone")

    with pytest.raises(stop, match="the device is gone"):
        generate(store, images(), every=4)
    assert set(store.ledger.get(KIND, KEYS)) == set(KEYS[:5])


def test_an_error_of_the_store_does_not_hide_the_first_one(store: Store) -> None:
    broken: Any = "no picture"
    gate, put = threading.Event(), store.images.put

    def waiting(image: Image.Image) -> str:
        assert gate.wait(10)
        return put(image)

    store.images.put = waiting  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="first") as error, ImageWriter(store, 4) as writer:
        writer.add(new(0))
        writer.add(NewImage(KEYS[1], 0, broken, None, FACTS))
        gate.set()
        raise RuntimeError("first")
    assert "storing another image failed too" in error.value.__notes__[0]
    assert set(store.ledger.get(KIND, KEYS)) == {KEYS[0]}
    with pytest.raises(AttributeError), ImageWriter(store, 4) as writer:
        writer.add(new(2))
        writer.add(NewImage(KEYS[1], 0, broken, None, FACTS))
    assert set(store.ledger.get(KIND, KEYS)) == {KEYS[0], KEYS[2]}
