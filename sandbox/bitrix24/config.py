"""Settings of the emulated Bitrix24 portal: sizes, limits, quirks."""

from dataclasses import dataclass, field
from typing import Literal

OperatingMode = Literal["nested", "batch", "first-entry", "absent"]

ALL_SCOPES = (
    *("crm", "user", "department", "userfieldconfig", "user.userfield", "task", "catalog"),
    *("telephony", "lists", "sonet_group", "socialnetwork", "calendar", "imopenlines", "im", "timeman"),
)


@dataclass(frozen=True)
class CostModel:
    """Simulated server seconds of one command: base + rows + counting when `start >= 0`.

    The count figure follows the vendor's example: 49.9 s for 2.39 M rows with a count, 0.097 s without.
    """

    base: float = 0.02
    per_row: float = 0.0004
    per_counted_row: float = 2e-5
    methods: dict[str, float] = field(default_factory=dict)
    """Overrides of `base`, keyed by lower-case method name."""

    def seconds(self, method: str, rows: int, counted: int) -> float:
        base = self.methods.get(method, self.base)
        return base + self.per_row * rows + self.per_counted_row * counted


@dataclass
class PortalConfig:
    """Everything that tells one emulated portal from another. Times are seconds, shares are 0..1."""

    seed: int = 1
    deals: int = 300
    leads: int = 120
    contacts: int = 200
    companies: int = 80
    quotes: int = 60
    invoices: int = 60
    process_items: int = 70
    """Rows of each default smart process."""
    activities: int = 150
    users: int = 23
    departments: int = 7
    gaps: float = 0.03
    """Share of ids missing from the id range; 0 makes ids dense."""
    user_fields: bool = False
    """Add UF_CRM_* fields of every kind to the CRM entities."""
    smart_processes: bool = True

    user_id: int = 1
    webhook_code: str = "sandbox0secret"
    admin: bool = True
    scopes: tuple[str, ...] = ALL_SCOPES

    clock_start: float | None = None
    """Unix seconds at which a virtual clock starts; None follows the real clock."""
    clock_factor: float = 1.0
    """Virtual seconds per real second; 0 freezes the clock until it is advanced."""
    utc_offset_h: float = 3.0
    date_form: Literal["utc", "local", "mixed"] = "mixed"
    """`date` values: midnight UTC in the portal offset, local midnight, or either, by field."""
    item_date_literals: Literal["any", "server"] = "any"
    """`server`: crm.item.list honours only `YYYY-MM-DD HH:MM:SS` in dates of filters."""

    rate_limit: tuple[float, float] | None = (50, 2)
    """(X, Y): block above X requests, drain Y per second; None switches the bucket off."""
    count_rejected: bool = False
    """Whether rejected requests also fill the bucket."""
    operating_mode: OperatingMode = "nested"
    operating_limit: float = 480.0
    cost: CostModel = field(default_factory=CostModel)
    request_cut: float = 60.0
    """A request whose simulated duration passes this is answered 504 with HTML."""
    latency: float = 0.0
    """Real seconds added to every HTTP request; concurrent requests overlap."""

    strict_uf_star: bool = True
    """`UF_*` leaves out multiple user fields."""
    numeric_labels_as_list: bool = True
    """PHP artefact: batch maps with keys 0..n-1 are serialised as lists."""
    post_filtered: float = 0.0
    """Share of rows dropped after paging (rights): pages become short while `next` is set."""
    event_data: Literal["fields", "false"] = "fields"
    license_family: str = "ent"

    mutations_per_second: float = 0.0
    mutations_per_command: int = 0
    """Random changes applied after every list command (deterministic by seed)."""
    cache_pages: int = 0
    """Number of rendered pages kept, keyed by command; 0 renders each time."""
