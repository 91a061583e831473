"""What `lipstream serve` says when it takes calls: where to open the page, and what that allows."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator

from aioice.ice import get_host_addresses

from lipstream.streaming.server.access import is_loopback
from lipstream.streaming.server.tls import Tls


def start_message(targets: Iterable[str], host: str, port: int, tls: Tls | None) -> Iterator[str]:
    """One line or more, for people."""
    scheme = "https" if tls is not None else "http"
    hosts = hosts_to_open(host)
    pages = ", ".join(f"{scheme}://{netloc(name, port)}/" for name in hosts)
    yield f"serving {', '.join(targets)} on {pages} (Ctrl-C ends)"
    if tls is None and not all(is_loopback(name) for name in hosts):
        here = "at the first address, on this machine" if is_loopback(hosts[0]) else "nowhere"
        yield (
            f"over http:// browsers give the microphone only {here}; for other machines add "
            "--tls self-signed or --tls CERT KEY, or a TLS proxy in front"
        )
    if tls is not None and tls.fingerprint is not None:
        yield (
            "browsers warn of the self-signed certificate once; "
            f"its SHA-256 fingerprint is {tls.fingerprint}"
        )


def hosts_to_open(host: str) -> list[str]:
    """What to type into a browser for an address that is listened on: this machine's first."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return [host]
    if not address.is_unspecified:
        return [host]
    others = get_host_addresses(use_ipv4=True, use_ipv6=address.version == 6)
    return ["localhost", *others]


def netloc(host: str, port: int) -> str:
    """As in a URL."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
