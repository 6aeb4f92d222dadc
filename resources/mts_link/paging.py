"""How a list is cut into pages: five families, each by its own parameters.

Only page sizes that the vendor lists are used, since others may be refused or silently replaced.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Family = Literal["once", "page", "offset", "pagination", "cursor"]
USUAL_SIZES = frozenset({10, 20, 25, 30, 50, 100, 200, 250})


@dataclass(frozen=True, slots=True)
class Paging:
    """`page`: page, perPage. `offset`: offset, limit. `pagination`: pagination[offset], pagination[limit].

    `cursor`: perPage and the cursor of the page before. `listed`: the size stands in the documentation, so
    that a shorter page is the last one; otherwise a page of another usual size may be a replaced limit.
    """

    family: Family = "once"
    size: int = 0
    listed: bool = True

    def ends(self, count: int) -> bool:
        """Whether a page of so many records is the last one."""
        if count == 0 or count > self.size:  # more than asked for: the parameters were ignored, this is all
            return True
        return count < self.size and (self.listed or count not in USUAL_SIZES)

    def query(self, page: int, received: int, cursor: str | None) -> dict[str, str]:
        """Parameters of page `page` (from 1), after `received` records."""
        if self.family == "page":
            return {"page": str(page), "perPage": str(self.size)}
        if self.family == "offset":
            return {"offset": str(received), "limit": str(self.size)}
        if self.family == "pagination":
            return {"pagination[offset]": str(received), "pagination[limit]": str(self.size)}
        if self.family == "cursor":
            return {"perPage": str(self.size)} | ({"cursor": cursor} if cursor else {})
        return {}


ONCE = Paging()
