"""What the webhook may and may not read, asked before the first load."""

from collections.abc import Sequence
from dataclasses import dataclass

from resources.bitrix24.calls import CommandError
from resources.bitrix24.client import Bitrix24Client
from resources.bitrix24.faults import scope_of

METHODS = (
    "crm.deal.list",
    "crm.lead.list",
    "crm.contact.list",
    "crm.company.list",
    "crm.quote.list",
    "crm.item.list",
    "crm.type.list",
    "crm.activity.list",
    "crm.stagehistory.list",
    "crm.item.productrow.list",
    "crm.status.list",
    "crm.category.list",
    "crm.currency.list",
    "user.get",
    "department.get",
    "crm.requisite.list",
    "crm.requisite.bankdetail.list",
    "crm.address.list",
    "crm.timeline.comment.list",
    "crm.activity.binding.list",
    "catalog.catalog.list",
    "catalog.product.list",
    "catalog.price.list",
    "voximplant.statistic.get",
    "tasks.task.list",
    "task.elapseditem.getlist",
    "sonet_group.get",
    "socialnetwork.api.workgroup.list",
    "calendar.event.get",
    "lists.get",
    "imopenlines.config.list.get",
    "user.userfield.list",
)


@dataclass(frozen=True, slots=True)
class PreflightRow:
    """One thing that was checked: whether it is as needed, and what was found."""

    subject: str
    ok: bool
    detail: str


def preflight(client: Bitrix24Client, methods: Sequence[str] = METHODS) -> list[PreflightRow]:
    """Rows for the webhook's owner, its scopes and every method; one request for up to 48 methods.

    Raises what the client raises when the portal cannot be reached or refuses the webhook.
    """
    asks = [("profile", {}), ("scope", {}), *(("method.get", {"name": name}) for name in methods)]
    profile, scope, *found = client.call_many(asks)
    rows = [_owner(profile), _scopes(scope, methods)]
    return rows + [_method(name, answer) for name, answer in zip(methods, found, strict=True)]


def _owner(answer: object) -> PreflightRow:
    if not isinstance(answer, dict):
        return PreflightRow("webhook owner", False, _text(answer))
    admin = answer.get("ADMIN") in (True, "Y", "1", "true")
    rights = (
        "administrator"
        if admin
        else "not an administrator: rows without the owner's right to read are missing"
    )
    return PreflightRow("webhook owner", True, f"user {answer.get('ID')}, {rights}")


def _scopes(answer: object, methods: Sequence[str]) -> PreflightRow:
    if not isinstance(answer, list):
        return PreflightRow("scopes", False, _text(answer))
    granted = {str(name) for name in answer}
    granted |= {"user"} if granted & {"user_basic", "user_brief"} else set()
    missing = sorted({scope_of(name) for name in methods} - granted)
    if missing:
        return PreflightRow("scopes", False, f"add to the webhook: {', '.join(missing)}")
    return PreflightRow("scopes", True, ", ".join(sorted(granted)))


def _method(name: str, answer: object) -> PreflightRow:
    if not isinstance(answer, dict):
        return PreflightRow(name, False, _text(answer))
    if not answer.get("isExisting"):
        return PreflightRow(name, False, "the portal has no such method")
    if not answer.get("isAvailable"):
        return PreflightRow(name, False, f"not allowed: the webhook needs the scope `{scope_of(name)}`")
    return PreflightRow(name, True, "available")


def _text(answer: object) -> str:
    return answer.message if isinstance(answer, CommandError) else "unexpected answer"
