"""One stream from one kind of end to another: what a transfer gives as numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.network import Network
from benchmarks.parts import Row, Values
from benchmarks.peers import LABELS, end, why_not

# What an end may tell beside seconds and CPU seconds.
TOLD_BY_SENDER = (
    "datagrams_per_send_call",
    "timeouts",
    "packets_sent",
    "packets_sent_again",
    "payload_bytes_of_packet",
)
TOLD_BY_RECEIVER = ("granted_receive_bytes", "receive_overflows")


def transfer(
    network: Network, sender: str, receiver: str, total_bytes: int, code: Path, module: str = "stream",
    at_receiver: dict[str, Any] | None = None, **options: Any,
) -> Values:  # fmt: skip
    """Measure one; ``options`` are those of both ends, and ``at_receiver`` has what the receiver alone is told."""
    dropped_before = network.dropped_datagrams()
    here = {**options, **(at_receiver or {})}
    with end(receiver, module, "receive", network.receiver, code, bytes=total_bytes, **here) as receiving:
        port = receiving.line()["port"]
        # a client is told where to, but for libtorrent, which needs an address of its own as well
        to = {"host": network.receiver.address}
        if sender == "libtorrent":
            to = {"host": network.sender.address, "peer": network.receiver.address}
        options |= {"bytes": total_bytes, "port": port, **to}
        with end(sender, module, "send", network.sender, code, **options) as sending:
            received = receiving.line()
            sent = sending.line()
    total_bytes = received.get("received_bytes", total_bytes)
    # a receiver that is a program of others does not know when it had everything
    seconds = received.get("seconds", sent["seconds"])
    gigabytes = total_bytes / 1e9
    values = {
        "megabytes_per_second": total_bytes / 1e6 / seconds,
        "sender_cpu_seconds_per_gigabyte": sent["cpu_seconds"] / gigabytes,
        "receiver_cpu_seconds_per_gigabyte": received["cpu_seconds"] / gigabytes,
        "cpu_seconds_per_gigabyte": (sent["cpu_seconds"] + received["cpu_seconds"]) / gigabytes,
    }
    values |= {name: sent[name] for name in TOLD_BY_SENDER if name in sent}
    values |= {name: received[name] for name in TOLD_BY_RECEIVER if name in received}
    if values.get("packets_sent"):
        values["sent_again_percent"] = 100 * values["packets_sent_again"] / values["packets_sent"]
    if dropped_before is not None:
        values["dropped_datagrams"] = (network.dropped_datagrams() or 0) - dropped_before
    return values


def row(
    network: Network, sender: str, receiver: str, total_bytes: int, label: str = "", name: str = "", group: str = "",
    **options: Any,
) -> Row:  # fmt: skip
    """Such a transfer as a row of a table."""
    label = label or (LABELS[sender] if sender == receiver else f"{LABELS[sender]} to {LABELS[receiver]}")
    return Row(
        name=name or (sender if sender == receiver else f"{sender}-to-{receiver}"),
        label=label,
        measure=lambda code: transfer(network, sender, receiver, total_bytes, code, **options),
        group=group,
        why_not=why_not(sender) or why_not(receiver),
        ours="utp" in (sender, receiver) or sender.startswith(("utp-no", "utp-listen")),
    )
