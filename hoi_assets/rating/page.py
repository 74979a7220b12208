"""The rating page: a small server on loopback, one secret link per rater.

Nothing that reaches the browser names a method: pictures are requested by place and side, and the
page does not show the name of the study. Each rater has an order of their own and resumes where
they stopped.
"""

import socket
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hoi_assets.errors import HoiError
from hoi_assets.progress import Log
from hoi_assets.rating.raters import find_rater
from hoi_assets.rating.study import (
    FAULTS,
    SCORES,
    Answer,
    Mode,
    Question,
    Showing,
    read_study,
    showings,
    study_images,
)
from hoi_assets.rating.votes import Vote, VoteFile, now, read_lines

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

HOST = "127.0.0.1"
PORT = 8765
TEMPLATES = Path(__file__).parent / "templates"
# Places whose pictures the browser prefetches.
AHEAD = 2
MAX_BODY_BYTES = 4096
SIDES = ("left", "right")
UNKNOWN_LINK = "This link is not known. Ask whoever sent it for a new one."

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; img-src 'self' data:; style-src 'self'; "
    "script-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
PICTURE_HEADERS = HEADERS | {"Cache-Control": "private, max-age=86400"}

# Per mode, what a rater can answer: the word the browser sends, its label, and the keys for it.
# The first key is the one shown on the button.
OPTIONS: dict[Mode, tuple[tuple[Answer, str, tuple[str, ...]], ...]] = {
    "rating": tuple((score, "", (str(score),)) for score in SCORES),
    "pairwise": (
        ("left", "A fits better", ("ArrowLeft", "a")),
        ("tie", "equal", ("=", "ArrowDown", "ArrowUp")),
        ("right", "B fits better", ("ArrowRight", "b")),
    ),
    "verify": ((0, "no", ("n", "0")), (1, "yes", ("y", "1"))),
}
# Keys of the kinds of faults, in their order; `u` takes an answer back.
FAULT_KEYS = "123456789qwert"


class Desk:
    """A study while it is served: every rater's progress, and the file of votes.

    Safe for several threads. Raises as `VoteFile` and `read_study`.
    """

    def __init__(self, folder: Path, saved: Callable[[], None] = lambda: None) -> None:
        self.folder = folder
        self.study = read_study(folder)
        self.images = study_images(folder)
        self._keys = [question.key for question in self.study.questions]
        self._file = VoteFile(folder, saved)
        self._lock = threading.Lock()
        self._orders: dict[str, tuple[Showing, ...]] = {}
        # By rater: the answers that count, oldest first.
        self._answers: dict[str, dict[tuple[str, bool, str], Answer]] = {}
        for line in read_lines(folder, self.study):
            if line.vote:
                self._note(line.vote)

    def close(self) -> None:
        """Release the study; every vote is on disk already."""
        self._file.close()

    def order(self, rater: str) -> tuple[Showing, ...]:
        """What that rater is shown, in order."""
        if rater not in self._orders:
            self._orders[rater] = showings(self.study, rater)
        return self._orders[rater]

    def vote(self, rater: str, place: Any, question: Any, answer: Any) -> None:
        """Take one answer, or take it back with None.

        Args:
            answer: as `OPTIONS` has it: in pairwise mode "left", "tie" or "right"; a fault with the
                place that was clicked, as `Vote` has it.

        Raises:
            HoiError: no such place or question, or an answer out of range.
            DiskFull: the vote could not be written.
        """
        order = self.order(rater)
        if type(place) is not int or not 1 <= place <= len(order):
            raise HoiError(f"place {place!r} is not in 1..{len(order)}", "reload the page")
        found = [asked for asked in self.study.questions if asked.key == question]
        if not found:
            raise HoiError(f"unknown question {question!r}", "reload the page")
        if answer is not None and not self._may_say(found[0], answer):
            raise HoiError(
                f"answer {answer!r} is not {self._answers_of(found[0])}", "answer by the keys shown"
            )
        showing = order[place - 1]
        vote = Vote(
            at=now(),
            rater=rater,
            item=showing.item.item,
            repeat=showing.repeat,
            question=question,
            answer=_side(answer, showing) if answer in SIDES else answer,
            on_left=showing.on_left,
            place=place,
        )
        with self._lock:
            self._file.add(vote)
            self._note(vote)

    def state(self, rater: str) -> dict[str, Any]:
        """What the page shows: progress, the first open question, and the vote to undo."""
        with self._lock:
            answers = dict(self._answers.get(rater, {}))
        order = self.order(rater)
        said = {
            showing: {key: answers.get((*_place(showing), key)) for key in self._keys}
            for showing in order
        }
        asked = [
            (
                showing,
                [one.key for one in self._due(said[showing]) if said[showing][one.key] is None],
            )
            for showing in order
        ]
        open_ = [(showing, missing) for showing, missing in asked if missing]
        places = {_place(showing): showing.place for showing in order}
        last = next(reversed(answers), None)
        return {
            "done": len(order) - len(open_),
            "total": len(order),
            "undo": {"place": places[last[:2]], "question": last[2]} if last else None,
            "now": self._asked(open_[0][0], open_[0][1][0], self._due(said[open_[0][0]]))
            if open_
            else None,
            "ahead": [path for showing, _ in open_[1 : 1 + AHEAD] for path in _paths(showing)],
        }

    def picture(self, rater: str, place: int, side: str) -> Path | None:
        """The file of the picture at that place and side; None if there is none."""
        order = self.order(rater)
        if not 1 <= place <= len(order) or side not in SIDES:
            return None
        pictures = order[place - 1].item.pictures
        if side == "right" and len(pictures) == 1:
            return None
        return self.images.path(pictures[0 if _side(side, order[place - 1]) == "a" else 1].image)

    def _due(self, said: Mapping[str, Answer | None]) -> list[Question]:
        """The questions that are asked of an item with those answers, answered or not."""
        return [
            question
            for question in self.study.questions
            if question.after is None or said[question.after[0]] == question.after[1]
        ]

    def _may_say(self, question: Question, answer: Any) -> bool:
        if question.faults:
            return question.allows(answer, self.study.mode)
        said = [option[0] for option in OPTIONS[self.study.mode]]
        return any(type(answer) is type(one) and answer == one for one in said)

    def _answers_of(self, question: Question) -> str:
        if question.faults:
            return question.answers(self.study.mode)
        return f"one of {', '.join(str(option[0]) for option in OPTIONS[self.study.mode])}"

    def _note(self, vote: Vote) -> None:
        own = self._answers.setdefault(vote.rater, {})
        key = (vote.item, vote.repeat, vote.question)
        # Taken out first, so that the newest answer is the last one.
        own.pop(key, None)
        if vote.answer is not None:
            own[key] = vote.answer

    def _asked(self, showing: Showing, key: str, due: Sequence[Question]) -> dict[str, Any]:
        number = [question.key for question in due].index(key)
        question = due[number]
        options: Iterable[tuple[Answer, str, Sequence[str]]] = OPTIONS[self.study.mode]
        if question.faults:
            options = (
                (kind, FAULTS.get(kind, kind), (sign,))
                for kind, sign in zip(question.faults, FAULT_KEYS, strict=False)
            )
        return {
            "place": showing.place,
            "prompt": showing.item.prompt,
            "pictures": _paths(showing),
            "question": question.key,
            "text": question.text,
            "low": question.low,
            "high": question.high,
            "number": number + 1,
            "of": len(due),
            "mark": bool(question.faults),
            "options": [
                {"answer": answer, "label": label, "keys": keys} for answer, label, keys in options
            ],
        }


def _place(showing: Showing) -> tuple[str, bool]:
    return showing.item.item, showing.repeat


def _paths(showing: Showing) -> list[str]:
    return [f"pictures/{showing.place}/{side}" for side in SIDES[: len(showing.item.pictures)]]


def _side(side: Any, showing: Showing) -> str:
    """Side a or b that stands on the left or right of this showing."""
    return "a" if (side == "left") == (showing.on_left == "a") else "b"


def build_app(desk: Desk) -> "Starlette":
    """The page as an ASGI application.

    `/r/{token}/` is the page, `state` and `votes` below it are JSON, `pictures/{place}/{side}` the
    pictures. An unknown token is answered with 403, whatever the path.
    """
    import jinja2
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.responses import FileResponse, HTMLResponse, JSONResponse, PlainTextResponse
    from starlette.routing import Route

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined
    )

    def trouble(status: int, what: str) -> JSONResponse:
        return JSONResponse({"error": what}, status, HEADERS)

    def known(
        answer: "Callable[[Request, str], Awaitable[Response]]",
    ) -> "Callable[[Request], Awaitable[Response]]":
        """Answer only requests whose link is known."""

        async def guarded(request: "Request") -> "Response":
            token = request.path_params["token"]
            rater = await run_in_threadpool(find_rater, desk.folder, token)
            if rater is None:
                if request.url.path.endswith("/"):
                    return PlainTextResponse(f"{UNKNOWN_LINK}\n", 403, HEADERS)
                return trouble(403, UNKNOWN_LINK)
            return await answer(request, rater)

        return guarded

    async def page(request: "Request", rater: str) -> "Response":
        html = environment.get_template("page.html.j2").render(rater=rater)
        return HTMLResponse(html, headers=HEADERS)

    async def state(request: "Request", rater: str) -> "Response":
        return JSONResponse(await run_in_threadpool(desk.state, rater), headers=HEADERS)

    async def votes(request: "Request", rater: str) -> "Response":
        try:
            vote = await request.json()
            place, question, answer = vote["place"], vote["question"], vote["answer"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return trouble(400, "A vote holds place, question and answer.")
        try:
            await run_in_threadpool(desk.vote, rater, place, question, answer)
        except HoiError as error:
            full = isinstance(error.__cause__, OSError)
            return trouble(507 if full else 400, error.what)
        return await state(request, rater)

    async def picture(request: "Request", rater: str) -> "Response":
        place, side = request.path_params["place"], request.path_params["side"]
        path = await run_in_threadpool(desk.picture, rater, place, side)
        if path is None or not path.is_file():
            return trouble(404, "There is no such picture.")
        return FileResponse(path, media_type="image/png", headers=PICTURE_HEADERS)

    async def file(request: "Request") -> "Response":
        return FileResponse(TEMPLATES / request.url.path.lstrip("/"), headers=HEADERS)

    async def nothing(request: "Request", error: Exception) -> "Response":
        return PlainTextResponse("Open the link you were given.\n", 404, HEADERS)

    return Starlette(
        routes=[
            Route("/r/{token}/", known(page)),
            Route("/r/{token}/state", known(state)),
            Route("/r/{token}/votes", known(votes), methods=["POST"]),
            Route("/r/{token}/pictures/{place:int}/{side}", known(picture)),
            Route("/page.css", file),
            Route("/page.js", file),
        ],
        exception_handlers={404: nothing},
        max_body_size=MAX_BODY_BYTES,
    )


def serve(
    folder: Path,
    host: str = HOST,
    port: int = PORT,
    log: Log = print,
    saved: Callable[[], None] = lambda: None,
) -> None:
    """Serve the study in `folder` until interrupted.

    Args:
        host: other than loopback, links and votes cross the network unencrypted.
        port: 0 takes a free one.
        log: gets the address once the page can be opened.
        saved: called after each vote.

    Raises:
        HoiError: no study there, it is being served already, or the port is taken.
    """
    import uvicorn

    desk = Desk(folder, saved)
    try:
        with _listening(host, port) as listener:
            shown = f"[{host}]" if ":" in host else host
            log(f"rating page at http://{shown}:{listener.getsockname()[1]}; Ctrl+C stops it")
            config = uvicorn.Config(
                build_app(desk),
                # Request lines hold the raters' secrets: they are not logged.
                access_log=False,
                log_level="warning",
                lifespan="off",
                ws="none",
                timeout_graceful_shutdown=2,
            )
            uvicorn.Server(config).run(sockets=[listener])
    finally:
        desk.close()


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        raise HoiError(
            f"cannot serve at {host}:{port}: {getattr(error, 'strerror', None) or error}",
            "choose another --port",
        ) from error
