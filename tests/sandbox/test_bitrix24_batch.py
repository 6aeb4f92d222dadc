"""Batch: references, labels, errors, PHP artefacts."""

from typing import Any
from urllib.parse import urlencode


def command(method: str, **params: str) -> str:
    """A batch command; keys are bracket names such as `filter[>ID]`."""
    return f"{method}?{urlencode(params)}"


def chain(length: int, start: str = "0") -> dict[str, str]:
    result = {}
    for number in range(length):
        last = f"$result[c{number - 1:03d}][49][ID]" if number else start
        keys = {"order[ID]": "ASC", "filter[>ID]": last, "select[]": "ID", "start": "-1"}
        result[f"c{number:03d}"] = command("crm.deal.list", **keys)
    return result


def test_a_keyset_chain_reads_everything_and_then_starts_again(rest: Any) -> None:
    answer = rest.batch(chain(8))
    pages = [[int(row["ID"]) for row in page] for page in answer["result"].values()]
    assert [number for page in pages[:6] for number in page] == [
        row["ID"] for row in rest.portal.expected("deal", "id")
    ]
    assert pages[6] == []
    assert pages[7] == pages[0], "an unresolvable reference is empty: the page is the first one"


def test_references_into_wrapped_results_and_scalars(rest: Any) -> None:
    answer = rest.batch(
        {
            "a": command("crm.item.list", entityTypeId="177", start="-1"),
            "b": command("crm.item.get", entityTypeId="177", id="$result[a][items][4][id]"),
            "c": command("crm.deal.get", id="$result[b][item][parentId2]"),
            "d": command("crm.deal.list", **{"filter[%TITLE]": "№$result[b][item][id]", "start": "-1"}),
        }
    )
    assert answer["result"]["b"]["item"]["id"] == answer["result"]["a"]["items"][4]["id"]
    parent = answer["result"]["b"]["item"]["parentId2"]
    assert "c" in answer["result_error"] or answer["result"]["c"]["ID"] == str(parent)
    assert "d" in answer["result"]


def test_errors_are_inside_a_good_answer(rest: Any) -> None:
    commands = {"a": "crm.deal.get?id=100500", "b": "no.such", "c": "batch?x=1", "d": "crm.deal.get?id=3"}
    answer = rest.batch(commands)
    assert list(answer["result"]) == ["d"]
    assert answer["result_error"]["b"]["error"] == "ERROR_METHOD_NOT_FOUND"
    assert answer["result_error"]["c"]["error"] == "ERROR_BATCH_METHOD_NOT_ALLOWED"
    assert list(answer["result_time"]) == ["d"]
    halted = rest.batch(commands, halt=1)
    assert halted["result"] == []
    assert list(halted["result_error"]) == ["a"]


def test_numeric_labels_become_lists(rest: Any) -> None:
    answer = rest.batch({"0": "crm.deal.list?start=0", "1": "no.such"})
    assert isinstance(answer["result"], list)
    assert answer["result_error"] == {"1": answer["result_error"]["1"]}
    assert answer["result_total"] == [300]
    answer = rest.batch(["crm.deal.list?start=-1"])
    assert answer["result_total"] == []
    assert len(answer["result"]) == 1


def test_a_form_carries_double_encoded_commands(rest: Any) -> None:
    body = {"cmd[c0]": command("crm.deal.list", **{"filter[<ID]": "5", "select[]": "ID"}), "halt": "0"}
    rows = rest.raw("batch", data=body).json()["result"]["result"]["c0"]
    assert [row["ID"] for row in rows] == ["1", "2", "3", "4"]


def test_more_than_fifty_commands_are_refused(rest: Any) -> None:
    assert rest.error("batch", cmd=chain(51)) == (400, "ERROR_BATCH_LENGTH_EXCEEDED")


def test_counts_for_reconciliation(rest: Any) -> None:
    keys = {"filter[>ID]": "0", "filter[<=ID]": "100", "select[]": "ID", "start": "0"}
    answer = rest.batch({"r0": command("crm.deal.list", **keys)})
    live = [row["ID"] for row in rest.portal.expected("deal", "id")]
    assert answer["result_total"]["r0"] == sum(number <= 100 for number in live)
    assert answer["result_next"]["r0"] == 50


def test_lone_surrogates_arrive_as_escapes(rest: Any) -> None:
    rest.portal.change("deal", 3, COMMENTS="обрыв \ud800 тут")
    response = rest.raw("batch", {"cmd": {"a": "crm.deal.list?filter[ID]=3", "b": "crm.deal.get?id=3"}})
    assert b"\\ud800" in response.content
    assert response.json()["result"]["result"]["b"]["COMMENTS"] == "обрыв \ud800 тут"
