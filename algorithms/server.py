"""What algorithms over a parameter server share: uploads to it, and its answer to everybody."""

from __future__ import annotations

from typing import ClassVar

from algorithms.compression import total
from netsim.comm.collectives import broadcast_from_server, gather
from netsim.comm.payload import Bundle, Flag, Vector
from netsim.comm.worker import Worker
from netsim.training.algorithm import Algorithm


class OverServer(Algorithm):
    """An algorithm whose workers upload to a server, which sends the dense sum back to all of them.

    With `serial` the server receives one worker after another, as in the SASG paper's set-up;
    otherwise from all at once through its one link.
    """

    uses_server: ClassVar[bool] = True

    def __init__(self, serial: bool = False) -> None:
        self.serial = serial

    async def sum_at_server(
        self, worker: Worker, own: Vector | None, template: Vector, upload_like: Vector | None = None
    ) -> Vector:
        """Return the dense sum, like `template`, of what all workers upload; `own` is None at a dedicated server.

        `upload_like` is an example of an upload, if it is not like the sum.
        """
        if own is not None:
            count_upload(worker, own)
        vectors = await gather(worker, own, template if upload_like is None else upload_like, self.serial)
        summed = None if vectors is None else await worker.compute("merge", total, *vectors)
        return await broadcast_from_server(worker, summed, template)

    async def sum_of_latest(
        self, worker: Worker, own: Bundle | None, latest: tuple[Bundle, ...], template: Vector, upload_like: Bundle
    ) -> tuple[Vector, tuple[Bundle, ...]]:
        """Return the sum of every worker's latest upload, and those uploads at the server.

        `own` is :func:`upload`, of the kind of `upload_like`, or :data:`SKIP`, or None at a dedicated server.
        For a worker that skips, the server uses its `latest` once more.
        """
        bundles = await gather(worker, own, upload_like, self.serial)
        summed = None
        if bundles is not None:
            latest = tuple(latest[rank] if _skips(bundle) else bundle for rank, bundle in enumerate(bundles))
            messages = [_message(bundle) for bundle in latest]
            worker.tally["stored_value_bytes"] = sum(message.value_bytes for message in messages)
            summed = await worker.compute("merge", total, *messages)
        return await broadcast_from_server(worker, summed, template), latest


SKIP = Bundle((Flag(False),))
"""What a worker sends that uploads nothing: one flag."""


def upload(worker: Worker, message: Vector, *notes: Vector) -> Bundle:
    """Return a message with the flag that announces it, and count it; `notes` go along uncounted."""
    count_upload(worker, message)
    return Bundle((Flag(True), message, *notes))


def _message(bundle: Bundle) -> Vector:
    message = bundle.parts[1]
    assert not isinstance(message, Flag)
    return message


def _skips(bundle: Bundle) -> bool:
    uploads = bundle.parts[0]
    assert isinstance(uploads, Flag)
    return not uploads.value


def count_upload(worker: Worker, message: Vector) -> None:
    """Count one "round" of the SASG paper: an upload of one worker, also one that shares the server's host."""
    worker.tally["uploads"] += 1
    worker.tally["value_bits"] += 8 * message.value_bytes
    worker.tally["index_bits"] += 8 * message.index_bytes
