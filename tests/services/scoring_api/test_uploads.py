"""From the ledger to Metrika: files, retries, a crash in between, what became of them."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg2
import pytest

from resources.metrika import MetrikaClient
from resources.postgres import USER, EmbeddedPostgres, with_driver
from resources.scoring_service import uploads as uploads_module
from resources.scoring_service.cipher import TokenCipher, new_key
from resources.scoring_service.conversions import Conversion
from resources.scoring_service.ledger import Ledger
from resources.scoring_service.sending import DEADLINE, GIVE_UP, SETTLE, Sender, pause_between_questions
from resources.scoring_service.uploads import Uploads
from sandbox.metrika import TOKEN, Metrika, MetrikaConfig, serve
from services.scoring_api.intake import Intake, NewBatch
from services.scoring_api.migrate import migrate

COUNTER = 100001
KNOWN = 13 + 97 * 1000  # a visitor that the emulator knows
NEVER = timedelta(days=365)


@pytest.fixture(scope="module")
def ledger(postgres: EmbeddedPostgres) -> Iterator[Ledger]:
    with closing(psycopg2.connect(host=str(postgres.socket_dir), user=USER, dbname="postgres")) as db:
        db.autocommit = True
        db.cursor().execute("CREATE DATABASE uploads")  # where all tokens have one key
    found = Ledger(with_driver(postgres.url_of("uploads")), TokenCipher(new_key()))
    migrate(found.engine)
    yield found
    found.close()


@pytest.fixture(scope="module")
def server() -> Iterator[Metrika]:
    with serve(MetrikaConfig(requests_per_second=0, parallel=0, requests_per_day=0)) as metrika:
        yield metrika


class Hurried:
    """A clock that does not wait."""

    def time(self) -> float:
        return time.time()

    def sleep(self, seconds: float, /) -> None:
        pass


class House:
    """A ledger without open work, a Metrika with the goal, a clock that can be moved."""

    def __init__(self, ledger: Ledger, metrika: Metrika, state: Any) -> None:
        self.ledger, self.metrika, self.uploads = ledger, metrika, Uploads(ledger)
        self.ahead, self.state = timedelta(0), state
        self.token_id = ledger.token_id(TOKEN)

    def client(self, token_id: int) -> MetrikaClient:
        token = self.ledger.token(token_id)
        return MetrikaClient(
            self.metrika.url,
            token,
            per_second=0,
            parallel=0,
            give_up_s=0.01,
            clock=Hurried(),
            timeout_s=5,
            state_dir=self.state,
        )

    def sender(self, client_of: Callable[[int], Any] | None = None, **options: Any) -> Sender:
        return Sender(
            self.uploads, client_of or self.client, now=lambda: datetime.now(UTC) + self.ahead, **options
        )

    def accept(self, *batches: Sequence[Conversion], counter: int = COUNTER) -> list[uuid.UUID]:
        async def add() -> list[uuid.UUID]:
            intake = Intake(with_driver(self.ledger.engine.url.render_as_string(hide_password=False)))
            await intake.start()
            try:
                new = [NewBatch("single", counter, self.token_id, batch) for batch in batches]
                return [a.batch_id for a in await asyncio.gather(*map(intake.add, new))]
            finally:
                await intake.stop()

        return asyncio.run(add())

    def send(self, sender: Sender | None = None) -> list[str]:
        """One pass of the job, with every wait over."""
        self.uploads.assign()
        with self.ledger.engine.begin() as db:
            db.exec_driver_sql(
                "UPDATE scoring.uploads SET next_at = now() WHERE state IN ('ready', 'sending')"
            )
        sender = sender or self.sender()
        return [sender.send(upload) for upload in self.uploads.due()]

    def watch(self) -> list[str]:
        sender = self.sender()
        return [sender.ask(upload) for upload in self.uploads.sent()]

    def status(self, batch: uuid.UUID) -> tuple[str, int, list[str] | None]:
        row = self.ledger.batch(batch)
        assert row
        return row["status"], row["processed"], row["errors"]

    def files(self) -> list[Any]:
        """What Metrika holds."""
        return [u for u in self.metrika.conversions.uploadings if u.counter == COUNTER]


@pytest.fixture
def house(ledger: Ledger, server: Metrika, tmp_path: Any) -> House:
    with ledger.engine.begin() as db:
        db.exec_driver_sql("UPDATE scoring.uploads SET state = 'done' WHERE state <> 'done'")
    server.faults.clear()
    server.conversions.uploadings.clear()
    found = House(ledger, server, tmp_path)
    client = found.client(found.token_id)
    client.create_goal(COUNTER, "4plus")
    return found


def conversion(**values: Any) -> Conversion:
    known = {"target": "4plus", "date_time": datetime(2025, 2, 3, tzinfo=UTC), "client_id": str(KNOWN)}
    return Conversion(**(known | values))


def test_a_batch_goes_its_way_to_the_end(house: House):
    (batch,) = house.accept([conversion(), conversion(price=Decimal("1.50"), currency="RUB")])
    assert house.status(batch) == ("pending", 0, None)
    assert house.send()[0].startswith("sent as")
    assert house.status(batch) == ("uploaded", 2, None)
    seen = []
    while house.watch():
        seen.append(house.status(batch)[0])
    assert seen == ["uploaded", "processing", "processing", "completed"]
    assert house.status(batch) == ("completed", 2, None)
    (file,) = house.files()
    assert [row["DateTime"] for row in file.rows] == ["1738540800"] * 2
    assert [row["Price"] for row in file.rows] == ["", "1.50"]
    row = house.ledger.batch(batch)
    assert row
    assert row["metrika_upload_id"] == str(file.id)


def test_many_batches_share_a_file_and_each_identifier_has_its_own(house: House):
    single = [[conversion()] for _ in range(20)]
    others = [
        [conversion(client_id=None, user_id="u"), conversion(client_id=None, yclid="y", purchase_id="p")]
    ]
    batches = house.accept(*single, *others)
    house.send()
    assert {(f.client_id_type, len(f.rows)) for f in house.files()} == {
        ("CLIENT_ID", 20),
        ("USER_ID", 1),
        ("YCLID", 1),
    }
    assert {house.status(batch)[0] for batch in batches} == {"uploaded"}
    assert house.send() == []


def test_visitors_nobody_knows_are_an_error(house: House):
    (batch,) = house.accept([conversion(client_id="1")])
    house.send()
    while house.watch():
        pass
    assert house.status(batch) == ("error", 1, ["Metrika status: LINKAGE_FAILURE"])
    assert house.uploads.retry(batch) == 1
    assert house.status(batch)[0] == "pending"
    house.send()
    assert len(house.files()) == 2


def test_a_crash_after_the_request_does_not_send_twice(house: House):
    (batch,) = house.accept([conversion()])

    class Crash(Exception):
        pass

    class Crashing:
        """Metrika takes the file, then our process is gone."""

        def __init__(self, client: MetrikaClient) -> None:
            self.goals = client.goals
            self._client = client

        def upload_conversions(self, *arguments: Any) -> None:
            self._client.upload_conversions(*arguments)
            raise Crash

    with pytest.raises(Crash):
        house.send(house.sender(lambda token: Crashing(house.client(token))))
    assert house.status(batch)[0] == "pending"
    assert house.send()[0].startswith("was sent as")
    assert len(house.files()) == 1
    assert house.status(batch)[0] == "uploaded"


def test_a_crash_before_the_request_sends_after_a_moment(house: House):
    (batch,) = house.accept([conversion()])
    house.uploads.assign()
    (upload,) = house.uploads.due()
    house.uploads.intend(upload)
    assert house.send()[0].startswith("postponed")
    house.ahead = SETTLE
    assert house.send()[0].startswith("sent as")
    assert len(house.files()) == 1
    assert house.status(batch)[0] == "uploaded"


@pytest.mark.parametrize("action", ["lost", "reset"])
def test_a_connection_that_breaks_ends_in_one_file(house: House, action: str):
    (batch,) = house.accept([conversion()])
    house.metrika.faults.add(action, "/upload$", times=2)
    house.ahead = timedelta(0)
    for _ in range(4):
        house.send()
        house.ahead += SETTLE
    assert house.status(batch)[0] == "uploaded"
    assert len(house.files()) == 1


@pytest.mark.parametrize(
    "error", [(503, "backend_error"), (504, "timeout"), (429, "quota_parallel_requests")]
)
def test_what_passes_is_tried_again(house: House, error: tuple[int, str]):
    (batch,) = house.accept([conversion()])
    status, kind = error
    house.metrika.faults.add("status", "/upload$", times=3, status=status, error_type=kind, message="no")
    for _ in range(5):
        house.send()
        house.ahead += SETTLE
    assert house.status(batch)[0] == "uploaded"
    assert len(house.files()) == 1


def test_a_used_up_quota_waits_for_midnight(house: House):
    (batch,) = house.accept([conversion()])
    options = {"status": 429, "error_type": "quota_requests_by_uid", "message": "Quota"}
    house.metrika.faults.add("status", "/upload$", times=1, **options)
    assert house.send()[0].startswith("postponed by")
    assert house.uploads.due() == []
    status, _, errors = house.status(batch)
    assert (status, errors) == ("pending", ["Metrika API error: Quota"])


def test_a_refused_token_is_an_error_with_metrikas_words(house: House):
    (batch,) = house.accept([conversion()])
    options = {"status": 403, "error_type": "access_denied", "message": "Access is denied"}
    house.metrika.faults.add("status", "/upload$", times=1, **options)
    assert house.send() == ["refused"]
    assert house.status(batch) == ("error", 0, ["Metrika API error: Access is denied"])


def test_rows_that_metrika_refuses_do_not_hold_up_others(house: House):
    batches = house.accept(*[[conversion(client_id=str(KNOWN + 97 * n))] for n in range(9)])
    poison = str(KNOWN + 97 * 4)

    class Refusing:
        """Refuses a file that holds one certain row."""

        def __init__(self, client: MetrikaClient) -> None:
            self.goals = client.goals
            self._client = client

        def upload_conversions(self, counter: int, body: bytes, comment: str) -> Any:
            if poison.encode() in body:
                house.metrika.faults.add(
                    "status", "/upload$", status=400, error_type="invalid_uploading", message="Bad row"
                )
            return self._client.upload_conversions(counter, body, comment)

    while house.send(house.sender(lambda token: Refusing(house.client(token)))):
        pass
    assert [house.status(b)[0] for b in batches] == ["uploaded"] * 4 + ["error"] + ["uploaded"] * 4
    assert sum(len(f.rows) for f in house.files()) == 8
    assert house.status(batches[4])[2] == ["Metrika API error: Bad row"]


def test_without_the_goal_it_waits_and_goes_when_the_goal_is_there(house: House):
    (batch,) = house.accept([conversion(target="missing")])
    assert house.send()[0].startswith("postponed by 600")
    status, _, errors = house.status(batch)
    assert status == "pending"
    assert errors
    assert "no JavaScript-event goal missing" in errors[0]
    assert house.send(house.sender(create_goals=True))[0].startswith("sent as")
    assert any(goal.takes("missing") for goal in house.client(house.token_id).goals(COUNTER))


def test_a_token_that_may_not_list_goals_may_still_send(house: House):
    house.accept([conversion()])
    house.metrika.faults.add(
        "status", "/goals$", times=1, status=403, error_type="access_denied", message="Access is denied"
    )
    assert house.send()[0].startswith("sent as")


def test_no_final_status_within_three_hours_is_an_error_and_may_be_watched_again(house: House):
    (batch,) = house.accept([conversion()])
    house.send()
    house.ahead = DEADLINE + timedelta(minutes=1)
    house.watch()
    assert house.status(batch)[0] == "error"
    house.ahead = timedelta(0)
    assert house.uploads.retry(batch) == 1
    while house.watch():
        pass
    assert house.status(batch)[0] == "completed"
    assert len(house.files()) == 1


def test_after_days_of_trying_it_gives_up_and_says_so(house: House):
    (batch,) = house.accept([conversion()])
    house.metrika.faults.add("status", "/upload$", times=9, status=503, error_type="backend_error")
    house.ahead = GIVE_UP + timedelta(hours=1)
    assert house.send() == ["given up"]
    assert house.status(batch)[0] == "error"
    house.metrika.faults.clear()
    house.ahead = timedelta(0)
    assert house.uploads.retry(batch) == 1
    assert house.send()[0].startswith("sent as")


def test_files_have_a_limit_of_rows(house: House, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(uploads_module, "ROWS_PER_FILE", 4)
    (batch,) = house.accept([conversion(client_id=str(KNOWN + 97 * n)) for n in range(10)])
    house.send()
    assert sorted(len(f.rows) for f in house.files()) == [2, 4, 4]
    while house.watch():
        pass
    assert house.status(batch) == ("completed", 10, None)


def test_rows_that_metrika_drops_are_told(house: House):
    (batch,) = house.accept([conversion(), conversion(currency="R€")])
    house.send()
    while house.watch():
        pass
    status, processed, errors = house.status(batch)
    assert (status, processed) == ("completed", 1)
    assert errors
    assert "1 of the 2 rows" in errors[0]


def test_a_file_whose_token_cannot_be_decrypted_waits_and_does_not_stop_others(house: House):
    good, bad = house.accept([conversion()], [conversion(target="other")])
    house.uploads.assign()
    lost = TokenCipher(new_key())
    with house.ledger.engine.begin() as db:
        insert = "INSERT INTO scoring.tokens (fingerprint, cipher) VALUES (%s, %s) RETURNING id"
        token = db.exec_driver_sql(insert, (uuid.uuid4().bytes, lost.encrypt("lost"))).scalar_one()
        db.exec_driver_sql(
            "UPDATE scoring.uploads SET token_id = %s WHERE state = 'ready' AND target = 'other'", (token,)
        )
    said = house.send()
    assert sorted(each.split()[0] for each in said) == ["postponed", "sent"]
    assert house.status(good)[0] == "uploaded"
    assert "SCORING_ENCRYPTION_KEY" in str(house.status(bad)[2])
    with house.ledger.engine.begin() as db:  # its key is back
        cipher = house.ledger.cipher.encrypt(TOKEN)
        db.exec_driver_sql("UPDATE scoring.tokens SET cipher = %s WHERE id = %s", (cipher, token))
    assert house.send(house.sender(create_goals=True))[0].startswith("sent as")


def test_one_process_sends_at_a_time(house: House):
    with house.uploads.alone() as first, house.uploads.alone() as second:
        assert (first, second) == (True, False)
    with house.uploads.alone() as later:
        assert later


def test_tokens_survive_a_rotation_of_the_key(house: House):
    old = house.ledger.cipher
    fresh = TokenCipher(f"{new_key()},{_first(old)}")
    rotated = Ledger(house.ledger.engine.url, fresh)
    assert rotated.token(house.token_id) == TOKEN
    assert rotated.rotate_tokens() >= 1
    assert house.ledger.cipher is old
    back = Ledger(house.ledger.engine.url, TokenCipher(f"{_first(old)},{_first(fresh)}"))
    back.rotate_tokens()
    assert house.ledger.token(house.token_id) == TOKEN


def _first(cipher: TokenCipher) -> str:
    return cipher._first.decode()


def test_asking_for_hours_costs_a_few_hundred_requests(house: House):
    house.accept([conversion()])
    house.send()
    (upload,) = house.uploads.sent()
    assert upload.sent_at
    asked, now = 0, upload.sent_at
    while now < upload.sent_at + DEADLINE:
        now += pause_between_questions(upload, now)
        asked += 1
    assert 100 < asked < 400
