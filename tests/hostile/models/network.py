"""Models that try to speak with anybody."""

from __future__ import annotations

import socket

from models.inside import is_allowed
from models.table import Table

TABLE = Table("network")
model = TABLE.model


@model()
def connects_by_tcp_to_the_host(p):
    """Connect to a listener on the host's loopback."""
    with socket.create_connection(("127.0.0.1", p["tcp"]), timeout=1):
        return True


@model()
def connects_by_tcp_to_the_world(p):
    """Connect to a public address (one that is reserved for documents)."""
    with socket.create_connection(("203.0.113.1", 80), timeout=1):
        return True


@model()
def sends_a_datagram(p):
    """Send a UDP datagram to the host's loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        return out.sendto(b"label", ("127.0.0.1", p["udp"]))


@model()
def connects_by_ipv6(p):
    """Make an IPv6 socket."""
    with socket.socket(socket.AF_INET6):
        return True


@model()
def connects_to_a_unix_socket(p):
    """Connect to a Unix socket of the host."""
    with socket.socket(socket.AF_UNIX) as out:
        return out.connect(p["unix"]) is None


@model()
def connects_to_an_abstract_socket(p):
    """Connect to an abstract socket of the host, which has no path to hide."""
    with socket.socket(socket.AF_UNIX) as out:
        return out.connect("\0" + p["abstract"]) is None


@model()
def asks_the_kernel_by_netlink(p):
    """Make a netlink socket."""
    with socket.socket(16, socket.SOCK_RAW):
        return True


@model()
def talks_to_the_hypervisor(p):
    """Make a vsock socket."""
    with socket.socket(40):
        return True


@model()
def sniffs_packets(p):
    """Make a packet socket."""
    with socket.socket(17, socket.SOCK_RAW):
        return True


@model()
def makes_a_pair_of_sockets(p):
    """Make a pair of connected sockets."""
    for end in socket.socketpair():
        end.close()
    return True


@model()
def listens(p):
    """Listen on a port of its own."""
    with socket.create_server(("127.0.0.1", 0)):
        return True


@model()
def resolves_a_name(p):
    """Send data out in a DNS question."""
    return socket.getaddrinfo("label-1.example.com", 80)


@model()
def connects_by_io_uring(p):
    """Set up io_uring, which makes system calls past older filters."""
    return is_allowed(425, 8, 0)
