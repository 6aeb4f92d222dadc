"""Published clients for the same API reading all deals: `python -m benchmarks.peers NAME WEBHOOK_URL`
prints the row count.

Certificates come from REQUESTS_CA_BUNDLE (b24pysdk) and SSL_CERT_FILE (fast_bitrix24).
"""

import sys
from typing import Any
from urllib.parse import urlsplit


def b24pysdk(url: str) -> int:
    """Keyset pages, 50 in a batch, one batch after another."""
    from b24pysdk import BitrixWebhook, Client

    parts = urlsplit(url)
    token = "/".join(parts.path.strip("/").split("/")[1:])
    client = Client(BitrixWebhook(domain=parts.netloc, webhook_token=token))
    return sum(1 for _ in client.crm.deal.list(select=["*"]).as_list_fast().result)


def fast_bitrix24(url: str) -> int:
    """Offset pages in parallel batches."""
    from fast_bitrix24 import Bitrix

    client: Any = Bitrix(url, verbose=False)  # its methods are typed as coroutines, and are not
    return len(client.get_all("crm.deal.list", params={"select": ["*"]}))


PEERS = {"b24pysdk": b24pysdk, "fast_bitrix24": fast_bitrix24}

if __name__ == "__main__":
    print(PEERS[sys.argv[1]](sys.argv[2]))
