"""The common part of algorithms with a parameter server: uploads to the server, and the broadcast of the sum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from algorithms.compression import total
from netsim._util.options import OnOff, Option
from netsim.comm.collectives import broadcast_from_server, gather
from netsim.comm.payload import Bundle, Flag, Vector
from netsim.comm.worker import Worker
from netsim.training.algorithm import Algorithm


class OverServer(Algorithm):
    """An algorithm whose workers upload to a server, and whose server sends the dense sum to all workers.

    Parameters
    ----------
    serial_server
        Whether the server receives from one worker after another, as in the SASG paper's set-up. Otherwise it receives
        from all workers at once, and the uploads share the server's link.
    """

    uses_server: ClassVar[bool] = True
    half_precision: ClassVar[bool] = True
    options: ClassVar[tuple[Option, ...]] = (
        Option(OnOff(), False, "Whether the server receives one worker after another.", name="serial_server"),
    )

    def __init__(self, serial_server: bool = False) -> None:
        self.serial = serial_server

    async def sum_at_server(
        self, worker: Worker, own: Vector | None, template: Vector, upload_like: Vector | None = None
    ) -> Vector:
        """Return the dense sum (d,) of the uploads of all workers.

        Parameters
        ----------
        worker
            The rank.
        own
            The upload of this rank; None at a dedicated server.
        template
            A vector like the sum.
        upload_like
            A vector like an upload; None if uploads are like the sum.
        """
        if own is not None:
            count_upload(worker, own)
        vectors = await gather(worker, own, template if upload_like is None else upload_like, self.serial)
        summed = None if vectors is None else await self._sum(worker, vectors)
        return await broadcast_from_server(worker, summed, template)

    async def sum_of_latest(
        self, worker: Worker, own: Bundle | None, latest: tuple[Bundle, ...], template: Vector, upload_like: Bundle
    ) -> tuple[Vector, tuple[Bundle, ...]]:
        """Return the dense sum (d,) of every worker's latest upload, and, at the server, those uploads.

        Parameters
        ----------
        worker
            The rank.
        own
            What this rank sends: an :func:`upload`, or :data:`SKIP`; None at a dedicated server.
        latest
            At the server, the last upload of every worker; used again for a worker that skips.
        template
            A vector like the sum.
        upload_like
            An example of an upload.
        """
        bundles = await gather(worker, own, upload_like, self.serial)
        summed = None
        if bundles is not None:
            latest = tuple(latest[rank] if _skips(bundle) else bundle for rank, bundle in enumerate(bundles))
            messages = [_message(bundle) for bundle in latest]
            worker.tally["stored_value_bytes"] = sum(message.value_bytes for message in messages)
            summed = await self._sum(worker, messages)
        return await broadcast_from_server(worker, summed, template), latest

    async def _sum(self, worker: Worker, vectors: Sequence[Vector]) -> Vector:
        """Return the dense sum (d,), added in float32 and rounded once to the precision of messages."""
        return await self.rounded(worker, await worker.compute("merge", total, *vectors))


SKIP = Bundle((Flag(False),))
"""The message of a worker that skips its upload: one flag."""


def upload(worker: Worker, message: Vector, *notes: Vector) -> Bundle:
    """Return the flag of an upload, `message` and `notes` in one bundle; count `message`, but not the notes."""
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
    """Count an upload (a "round" of the SASG paper), also one from a worker on the server's own host."""
    worker.tally["uploads"] += 1
    worker.tally["value_bits"] += 8 * message.value_bytes
    worker.tally["index_bits"] += 8 * message.index_bytes
