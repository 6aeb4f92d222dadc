"""How large the organisation is, and how its server behaves."""

from dataclasses import dataclass


@dataclass
class OrgConfig:
    """A small organisation by default; the large one has 2,000 people, 20,000 sessions, 1,000,000 messages.

    Everything is a function of `seed` and a number, so a large one takes no more memory than a small one.
    `rate` is requests within one second, None for no limit. `first_refusals` requests are answered with
    `first_status`. `overlap`: a page of messages repeats the message that it begins at.
    `text_ids`: ids are texts everywhere, instead of numbers in some methods.
    """

    seed: int = 1
    staff: int = 12
    sessions: int = 30
    sessions_per_event: int = 2
    participants: int = 6
    channels: int = 5
    messages: int = 400
    contacts: int = 20
    tests: int = 6
    courses: int = 2
    rooms: int = 2
    files_per_folder: int = 3
    days: int = 300
    token: str = "sandbox-key"
    oauth_token: str = "sandbox-oauth"
    rate: float | None = 2
    latency: float = 0.0
    clock_start: float | None = None
    clock_factor: float = 1.0
    overlap: bool = True
    text_ids: bool = False
    first_refusals: int = 0
    first_status: int = 429


SIZES = {
    "small": {},
    "medium": {
        "staff": 500,
        "sessions": 5_000,
        "participants": 10,
        "channels": 100,
        "messages": 100_000,
        "contacts": 600,
        "tests": 100,
        "courses": 10,
        "rooms": 20,
        "files_per_folder": 20,
    },
    "large": {
        "staff": 2_000,
        "sessions": 20_000,
        "participants": 10,
        "channels": 400,
        "messages": 1_000_000,
        "contacts": 5_000,
        "tests": 400,
        "courses": 40,
        "rooms": 100,
        "files_per_folder": 50,
    },
}
