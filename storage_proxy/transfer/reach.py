"""Which addresses a registry's connections may go to: public ones, its own, and those that the operator lists.

A registry's answer can redirect anywhere. Without this a stranger's model could make the proxy ask a service that
only listens to this machine, or to this network. What is checked is the address that is really connected.
"""

import ipaddress
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from proxy_client.errors import SourceForbidden, SourceUnavailable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052


@dataclass(frozen=True)
class Place:
    """One address that a host's name stands for, as `socket.connect` takes it."""

    family: socket.AddressFamily
    sockaddr: tuple[str | int | bytes, ...]

    @property
    def address(self) -> Address:
        """Return the IP address, unwrapped from the forms that carry an IPv4 address in an IPv6 one."""
        address = ipaddress.ip_address(str(self.sockaddr[0]).partition("%")[0])
        if isinstance(address, ipaddress.IPv6Address):
            if address.ipv4_mapped is not None:
                return address.ipv4_mapped
            if address.sixtofour is not None:
                return address.sixtofour
            if address in _NAT64:
                return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        return address


@dataclass(frozen=True)
class Reach:
    """The rule for one registry: `home` is the host of its endpoint, `listed` what the operator allows besides."""

    registry: str
    home: str
    listed: tuple[Network, ...] = ()

    def places(self, host: str, port: int) -> Sequence[Place]:
        """Resolve a host to the addresses that may be connected, in their order.

        Raises `SourceUnavailable` for a name that does not resolve, `SourceForbidden` if no address is allowed.
        """
        found = self._resolve(host, port)
        if host == self.home:
            return found
        own: frozenset[Address] | None = None
        allowed = []
        for place in found:
            address = place.address
            if not _is_public(address) and not any(address in network for network in self.listed):
                if own is None:
                    own = frozenset(here.address for here in self._resolve(self.home, port))
                if address not in own:
                    continue
            allowed.append(place)
        if not allowed:
            raise SourceForbidden(
                f"the registry {self.registry} leads to a private address, which is not asked; if it belongs to the "
                f"registry, list it in artifact-registries.{self.registry}.private-addresses"
            )
        return allowed

    def _resolve(self, host: str, port: int) -> list[Place]:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as exc:
            raise SourceUnavailable(
                f"the registry {self.registry} does not answer (its host's name does not resolve)"
            ) from exc
        return [Place(family, tuple(sockaddr)) for family, _, _, _, sockaddr in found]


def _is_public(address: Address) -> bool:
    # `is_global` alone lets through the rest of ::/8, translated addresses (RFC 8215) among them, and site-local ones.
    site_local = isinstance(address, ipaddress.IPv6Address) and address.is_site_local
    return address.is_global and not (address.is_multicast or address.is_reserved or site_local)
