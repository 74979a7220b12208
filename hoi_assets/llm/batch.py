"""Many requests to one endpoint, side by side."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

from hoi_assets.llm.client import EndpointClient
from hoi_assets.progress import Log, track

# How often a waiting batch writes the client's notes to the log, in seconds.
LOG_EVERY_S = 1.0

Item = TypeVar("Item")
Result = TypeVar("Result")


def request_all(
    client: EndpointClient,
    items: Sequence[Item],
    request: Callable[[Item, bool], Result],
    on_result: Callable[[Item, Result], None],
    label: str,
    log: Log,
) -> list[Result]:
    """Request all items, up to `concurrency` at once; results in the items' order.

    Args:
        request: takes an item and whether it is the first (see `EndpointClient.request`); the first
            goes alone, so that a wrong address costs one call and not all of them.
        on_result: called in this thread with each result as it arrives.
        label: what is requested, for the log.

    Raises:
        EndpointError: the endpoint does not answer the first call, or refuses it.
    """
    if not items:
        return []
    client.stop_reason = None
    client.served.clear()
    results: dict[int, Result] = {}

    def write_notes() -> None:
        while client.notes:
            log(f"{label}: {client.notes.popleft()}")

    with ThreadPoolExecutor(client.options.concurrency) as pool:

        def take(numbers: Sequence[int], first: bool) -> None:
            pending = {pool.submit(request, items[n], first): n for n in numbers}
            done = _as_completed(pending, write_notes)
            for future in done if first else track(done, label, total=len(pending), log=log):
                number = pending[future]
                results[number] = future.result()
                on_result(items[number], results[number])

        try:
            take([0], True)
            take(range(1, len(items)), False)
        except BaseException:
            client.stop_reason = client.stop_reason or "stopped: the run ended"
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        finally:
            write_notes()
    for model, answers in client.served.most_common():
        log(
            f"{label}: {client.section}.model {client.model!r} was requested, {model!r} gave "
            f"{answers} answers"
        )
    if client.stop_reason:
        log(f"{label}: {client.stop_reason}")
    return [results[n] for n in range(len(items))]


def _as_completed(
    futures: dict["Future[Result]", int], meanwhile: Callable[[], None]
) -> Iterator["Future[Result]"]:
    """The futures as they end; `meanwhile` is called every second while waiting."""
    pending = set(futures)
    while pending:
        done, pending = wait(pending, timeout=LOG_EVERY_S, return_when=FIRST_COMPLETED)
        meanwhile()
        # In the order they were submitted.
        yield from sorted(done, key=futures.__getitem__)
