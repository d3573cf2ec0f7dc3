"""Where a request comes from: whoever has connected, or whom a trusted proxy names. Pure.

Each proxy adds the address that it sees to the end of ``X-Forwarded-For``; what stands before is what it was
told, by anybody. So the list is read from its end, and only while those who wrote it are trusted. It must
never believe a client about itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import ip_address, ip_network

KNOWN = 4_096  # addresses whose trust is remembered: parsing one takes some microseconds


class Proxies:
    """The proxies that one deployment trusts."""

    def __init__(self, trusted: Iterable[str]) -> None:
        self._networks = [ip_network(one) for one in trusted]
        self._trusts = lru_cache(KNOWN)(self._is_trusted)

    def client(self, peer: str, forwarded: Iterable[str]) -> str:
        """The address that a request comes from.

        Args:
            peer: who has opened the connection.
            forwarded: the values of its ``X-Forwarded-For`` headers, in their order.
        """
        if not self._networks or not self._trusts(peer):
            return peer
        found = peer
        for hop in reversed(",".join(forwarded).split(",")):
            if not (address := _without_port(hop.strip())):
                break  # the proxy has nothing to say
            found = address
            if not self._trusts(found):
                break
        return found

    def _is_trusted(self, address: str) -> bool:
        try:
            parsed = ip_address(address)
        except ValueError:
            return False
        parsed = getattr(parsed, "ipv4_mapped", None) or parsed  # a socket for both families writes IPv4 so
        return any(parsed in network for network in self._networks)


def _without_port(hop: str) -> str:
    """Some proxies write ``192.0.2.7:1234`` or ``[2001:db8::7]:1234``."""
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop
