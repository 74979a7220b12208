"""What the page has answered is on disk, however its server ends."""

import json
import threading
import time
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path

from hoi_assets.rating.raters import make_links
from hoi_assets.rating.vote_tables import votes_table
from hoi_assets_tests.rating.conftest import study_of
from hoi_assets_tests.rating.server import Server

KILLS = 3
VOTES_BETWEEN = 15


def test_every_confirmed_vote_outlives_kills_in_the_middle_of_voting(tmp_path: Path) -> None:
    folder = study_of(tmp_path, "rating")
    server = Server(folder)
    urls = make_links(folder, ["anna", "ben"], server.url)
    confirmed: dict[str, list[tuple[int, int]]] = {rater: [] for rater in urls}
    stop = threading.Event()

    def vote(rater: str) -> None:
        number = 0
        while not stop.is_set():
            place, score = number % 24 + 1, number % 5 + 1
            body = {"place": place, "question": "fidelity", "answer": score}
            request = urllib.request.Request(f"{urls[rater]}votes", json.dumps(body).encode())
            try:
                urllib.request.urlopen(request, timeout=10).close()
            except (urllib.error.URLError, HTTPException, ConnectionError, TimeoutError):
                time.sleep(0.05)
                continue
            confirmed[rater].append((place, score))
            number += 1

    raters = [threading.Thread(target=vote, args=(rater,)) for rater in urls]
    for rater in raters:
        rater.start()
    try:
        for kill in range(1, KILLS + 1):
            while min(map(len, confirmed.values())) < kill * VOTES_BETWEEN:
                time.sleep(0.01)
            server.kill()
            if kill < KILLS:
                server.start()
    finally:
        stop.set()
        for rater in raters:
            rater.join()
    table = votes_table(folder)
    for rater, votes in confirmed.items():
        kept = table.filter(rater=rater).select("place", "score").rows()
        # One more vote a kill can be on disk whose confirmation never arrived; it is sent again.
        once = [vote for place, vote in enumerate(kept) if place == 0 or vote != kept[place - 1]]
        assert once[: len(votes)] == votes and len(once) - len(votes) <= 1
