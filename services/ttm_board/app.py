"""The board's pages: the page, its changing part, events, CSV."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from fastapi import Depends, FastAPI, Request
from fastapi.responses import HTMLResponse, PlainTextResponse, Response, StreamingResponse
from fastapi.staticfiles import StaticFiles
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from resources.postgres import PostgresError
from services.ttm_board import export, view
from services.ttm_board.access import Access
from services.ttm_board.config import BoardConfig
from services.ttm_board.data import Board, Snapshot
from services.ttm_board.feed import Feed

HERE = Path(__file__).parent
FIRST_DAY = date(2000, 1, 1)


class Asked:
    """What the address asks for: filters of the list, the day and unit of the overdue, the wall's view.

    Anything unusable in it is as if it were not there: an old bookmark must open.
    """

    def __init__(
        self,
        q: str = "",
        asked: str = "",
        state: str = "",
        unit: str = "",
        day: str = "",
        wall: str = "",
    ) -> None:
        self.filters = view.Filters(q.strip()[:200], asked, state if state in view.STATES else "", unit)
        self.day = day
        self.wall = wall == "1"

    def day_of(self, now: datetime) -> date:
        """The day asked for; yesterday if there is none, or none that could be."""
        try:
            found = date.fromisoformat(self.day)
        except ValueError:
            found = None
        return found if found and FIRST_DAY <= found <= now.date() else now.date() - timedelta(days=1)

    def query(self) -> str:
        """The same as the end of an address."""
        f = self.filters
        given = {"q": f.text, "asked": f.asked, "state": f.state, "unit": f.unit, "day": self.day}
        return urlencode({name: value for name, value in given.items() if value})


def build_app(board: Board, config: BoardConfig) -> FastAPI:
    """The application; opens its sources while it runs."""
    feed = Feed(board.version, board.hub.ask, config.refresh_s)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with feed:
            yield
        board.hub.close()
        board.database.close()

    app = FastAPI(title="TTM", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.state.feed = feed
    app.mount("/static", StaticFiles(directory=HERE / "static"), name="static")
    app.add_middleware(Access, config=config)
    _add_pages(app, _Pages(board, config))

    @app.get("/events")
    async def events() -> Response:
        if feed.full:
            return PlainTextResponse("Слишком много открытых досок.\n", 503, {"Retry-After": "30"})
        headers = {"X-Accel-Buffering": "no"}  # a proxy must not gather events
        return StreamingResponse(feed.watch(), media_type="text/event-stream", headers=headers)

    @app.get("/healthz")
    async def healthz() -> PlainTextResponse:
        return PlainTextResponse("ok\n")

    @app.exception_handler(PostgresError)
    async def no_database(_: Request, error: Exception) -> Response:
        return PlainTextResponse("База данных тикетов недоступна, попробуйте позже.\n", 503)

    return app


class _Pages:
    """Makes HTML and CSV of a snapshot."""

    def __init__(self, board: Board, config: BoardConfig) -> None:
        self._board, self._config = board, config
        self._zone = config.calendar_zone
        self._templates = Environment(
            loader=FileSystemLoader(HERE / "templates"),
            autoescape=select_autoescape(default=True, default_for_string=True),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters |= {"left": view.left_text, "instant": self._instant, "duration": _seconds}

    def _instant(self, at: datetime | None) -> str:
        return view.local(at, self._zone)

    async def read(self, asked: Asked) -> Snapshot:
        return await asyncio.to_thread(self._board.snapshot, asked.day_of(self.now()))

    def now(self) -> datetime:
        return datetime.now(self._zone)

    def html(self, name: str, asked: Asked, shot: Snapshot) -> HTMLResponse:
        now = datetime.now(UTC)
        lines = view.lines(shot.stopped, now)
        overdue = view.breached(shot.expired)
        connectors = view.by_name(shot.hub.connectors)
        chosen = view.breached(shot.expired, asked.filters.unit)
        text = self._templates.get_template(name).render(
            asked=asked,
            filters=asked.filters,
            states=view.STATES,
            lines=[line for line in lines if asked.filters.takes(line)],
            total=len(lines),
            late=sum("overdue" in line.marks for line in lines),
            fresh=view.freshness(shot.loads.get("stopped_tickets"), now, self._config.interval_s),
            day=shot.day,
            listed=len(shot.expired),
            overdue=overdue,
            chosen=chosen,
            bars=view.bars(overdue),
            bar_left=view.LABEL_WIDTH,
            day_fresh=view.day_freshness(shot.loads.get("expires_tickets"), shot.day),
            hub=shot.hub,
            connectors=connectors,
            upstream=view.UPSTREAM,
            asking=view.choices(shot.stopped, "who_ask_pause"),
            units=view.choices(overdue, "responsible"),
            version=shot.version,
            at=self.now(),
        )
        return HTMLResponse(text)

    def csv(self, name: str, rows: Any, columns: dict[str, str]) -> Response:
        body = export.to_csv(rows, columns, self._zone)
        headers = {"Content-Disposition": f'attachment; filename="{name}.csv"'}
        return Response(body, media_type="text/csv; charset=utf-8", headers=headers)

    def stopped_csv(self, asked: Asked, shot: Snapshot) -> Response:
        lines = view.lines(shot.stopped, datetime.now(UTC))
        rows = [line.row for line in lines if asked.filters.takes(line)]
        return self.csv(f"stopped_tickets_{self.now():%Y-%m-%d_%H%M}", rows, export.STOPPED)

    def expired_csv(self, asked: Asked, shot: Snapshot) -> Response:
        rows = view.breached(shot.expired, asked.filters.unit)
        return self.csv(f"expires_tickets_{shot.day}", rows, export.EXPIRED)


def _add_pages(app: FastAPI, pages: _Pages) -> None:

    wanted = Depends(Asked)

    @app.get("/", response_class=HTMLResponse)
    async def page(asked: Asked = wanted) -> Response:
        return pages.html("page.html", asked, await pages.read(asked))

    @app.get("/panel", response_class=HTMLResponse)
    async def panel(asked: Asked = wanted) -> Response:
        return pages.html("panel.html", asked, await pages.read(asked))

    @app.get("/stopped.csv")
    async def stopped(asked: Asked = wanted) -> Response:
        return pages.stopped_csv(asked, await pages.read(asked))

    @app.get("/expired.csv")
    async def expired(asked: Asked = wanted) -> Response:
        return pages.expired_csv(asked, await pages.read(asked))


def _seconds(seconds: float | None) -> str:
    return view.duration(timedelta(seconds=seconds)) if seconds is not None else "—"
