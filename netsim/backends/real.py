"""The interpreter over torch.distributed: one rank of a real cluster, on gloo, nccl or mpi."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from netsim.backends.beside import Backward, Forked
from netsim.backends.messages import HEADER, Incoming, Outgoing, Transfer, Where, transfer_tag
from netsim.backends.wire import HEADER_BYTES, Header, as_tensor, decode, encode, head_of, known_bytes, values_after
from netsim.errors import ProtocolError
from netsim.jobs.whereabouts import HERE
from netsim.payload import Dense, Payload, check_like, has_known_size
from netsim.pieces import InPieces
from netsim.timeline import Timeline
from netsim.worker import EXPAND, Collective, Compute, Fork, Recv, Send, SendRecv, Sends, Start, Worker, evaluate

T = TypeVar("T")
COMMUNICATION = (Send, Recv, SendRecv, Outgoing, Incoming)
RECEIPTS_KEPT = 4096
"""The kernel has a receipt, a byte whose receiver is waiting, long before so many later ones were sent."""


class Real:
    """Answers one rank's requests with torch.distributed, and keeps its clock.

    Bodies travel on `device` (the GPU under nccl, otherwise main memory), headers always through
    main memory: under nccl the process group has both backends, ``cpu:gloo,cuda:nccl``.
    """

    def __init__(self, worker: Worker, device: str, backend: str, sends: Sends = "eager") -> None:
        self._worker = worker
        self._device, self._backend, self._sends = device, backend, sends
        self._on_gpu = backend == "nccl"
        # Tags that have a size in them are larger than every mpi must take.
        self._at_once = backend == "gloo"
        # A receipt does not keep nccl's stream from running ahead, and there the batch is the pair's own.
        self._acknowledged = sends == "acknowledged" and not self._on_gpu
        self._receiving: dict[tuple[int, int], Incoming] = {}
        self._receipts: deque[Transfer] = deque(maxlen=RECEIPTS_KEPT)
        self._request: Any = None
        self._backward: ThreadPoolExecutor | None = None
        self.packing_s = 0.0
        """Spent on turning payloads into bytes and back."""
        self.timeline = Timeline()
        """In seconds, of this coroutine and of those that it forked."""

    def run(self, program: Coroutine[Any, Any, T]) -> T:
        """Drive `program` to its end and return its result."""
        HERE.follow(self._worker, self._doing)
        return self._drive(program)

    def _drive(self, program: Coroutine[Any, Any, T]) -> T:
        answer = None
        try:
            while True:
                request = program.send(answer)
                started = time.perf_counter()
                answer = self._answer(request)
                if isinstance(request, COMMUNICATION):
                    self.timeline.communicated(started, time.perf_counter())
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        finally:
            program.close()

    def _doing(self) -> str:
        """Say what is being done, in the middle of it."""
        match self._request:
            case Compute(work=work):
                return f"computing ({work})"
            case Send(dst=dst) | Start(Send(dst=dst)):
                return f"sending to rank {dst}"
            case Recv(src=src) | Start(Recv(src=src)):
                return f"receiving from rank {src}"
            case SendRecv(send=Send(dst=dst), recv=Recv(src=src)):
                return f"sending to rank {dst} and receiving from rank {src}"
            case Outgoing() | Incoming():
                return "finishing what it started"
            case Fork() | Forked() | InPieces():
                return "computing (gradient) or exchanging what is there of it"
        return ""

    def _answer(self, request: Any) -> Any:
        self._request = request
        match request:
            case Collective():
                return EXPAND
            case Compute():
                return evaluate(request, self._compute)
            case Outgoing() | Incoming():
                return request.finish()
            case Start(Send() as send):
                return self._start_send(send)
            case Start(Recv() as recv):
                return self._receive_in_background(recv)
            case Send():
                return self._start_send(request).finish()
            case Recv():
                return self._start_recv(request).finish()
            case SendRecv():
                return self._exchange(request)
            case Fork():
                return self._fork(request)
            case Forked():
                return request.finish()
            case InPieces():
                return self._in_pieces(request)
        raise ProtocolError(f"rank {self._worker.rank} awaited {request!r}, which is not a netsim request")

    def _compute(self, request: Compute[Any], args: list[Any]) -> Any:
        started = time.perf_counter()
        result = request.function(*args)
        if self._device.startswith("cuda"):
            torch.cuda.synchronize(self._device)
        self.timeline.computed(request.work, started, time.perf_counter())
        return result

    def _fork(self, request: Fork[Any]) -> Forked:
        """Let a thread answer the requests of a coroutine that runs beside this one."""
        beside = Real(request.worker, self._device, self._backend, self._sends)
        beside.timeline = self.timeline
        return Forked(partial(beside._drive, request.coroutine))

    def _in_pieces(self, request: InPieces) -> Backward:
        if self._backward is None:
            # One thread for all steps: it keeps a copy of the model, and torch's number of threads is its own.
            self._backward = ThreadPoolExecutor(1, "backward", torch.set_num_threads, (torch.get_num_threads(),))
        return Backward(request, self._backward, self.timeline, self._device)

    def _start_send(self, request: Send) -> Outgoing:
        outgoing = self._outgoing(request)
        outgoing.send_body()
        return outgoing

    def _outgoing(self, request: Send) -> Outgoing:
        where = self._where("sending to rank", request.dst, request.payload)
        return Outgoing(*self._pack(request), request.dst, request.tag, where, self._acknowledged)

    def _start_recv(self, request: Recv[Any]) -> Incoming:
        """Be ready for all of a message, or for its header: gloo moves no data before the receiver is."""
        channel = (request.src, request.tag)
        if (earlier := self._receiving.get(channel)) is not None:
            earlier.finish()  # headers and bodies of one channel must come in turn
        where = self._where("receiving from rank", request.src, request.like)
        known = known_bytes(request.like) if self._at_once else None

        def body_bytes(header: torch.Tensor) -> int:
            return Header.decode(header, where.operation, where.step, request.tag, where).body_bytes

        def unpack(first: torch.Tensor, body: torch.Tensor | None, receipt: Transfer | None) -> Payload:
            if known is None:
                del self._receiving[channel]
            if receipt is not None:
                self._receipts.append(receipt)
            return self._unpack(first, body, request, where)

        incoming = Incoming(
            *(request.src, request.tag, self._wire_device, where), known, body_bytes, unpack, self._acknowledged
        )
        if known is None:
            self._receiving[channel] = incoming
        return incoming

    def _receive_in_background(self, request: Recv[Any]) -> Incoming:
        incoming = self._start_recv(request)
        if not self._on_gpu:
            incoming.in_background()
        return incoming

    def _exchange(self, request: SendRecv[Any]) -> Payload:
        if self._on_gpu:
            return self._exchange_bodies_at_once(request)
        incoming = self._start_recv(request.recv)
        outgoing = self._outgoing(request.send)
        if request.send.dst == request.recv.src:
            # One connection carries both: that we are ready must not queue behind our own body.
            incoming.make_ready()
        outgoing.send_body()
        payload = incoming.finish()
        outgoing.finish()
        return payload  # type: ignore[no-any-return]

    def _exchange_bodies_at_once(self, request: SendRecv[Any]) -> Payload:
        """nccl runs a pair's sends and receives one after the other, so both bodies go as one batch."""
        send, recv = request.send, request.recv
        where = self._where(f"sending to rank {send.dst} and receiving from rank", recv.src)
        header, body = self._pack(send)
        assert body is not None, "under nccl a header goes by itself"
        words = torch.empty(HEADER_BYTES, dtype=torch.uint8)
        headers = [
            Transfer.into(words, recv.src, transfer_tag(recv.tag, HEADER), where),
            Transfer.out(header, send.dst, transfer_tag(send.tag, HEADER), where),
        ]
        for transfer in headers:
            transfer.wait(where)
        theirs = Header.decode(words, where.operation, where.step, recv.tag, where)
        buffer = torch.empty(theirs.body_bytes, dtype=torch.uint8, device=self._wire_device)
        batch = [dist.P2POp(dist.isend, body, send.dst)] if body.numel() else []
        batch += [dist.P2POp(dist.irecv, buffer, recv.src)] if buffer.numel() else []
        for work in dist.batch_isend_irecv(batch) if batch else ():
            Transfer(work, buffer, recv.src).wait(where)
        return self._unpack(words, buffer, recv, where)

    @property
    def _wire_device(self) -> str:
        return self._device if self._on_gpu else "cpu"

    def _pack(self, request: Send) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the header and the body, or all in one and None, if the receiver knows how much that is."""
        started = time.perf_counter()
        payload, worker = request.payload, self._worker
        head = head_of(payload, worker.operation, worker.step, request.tag)
        if self._at_once and has_known_size(payload):
            first, body = self._moved(encode(head, payload), "cpu"), None
        else:
            body = self._moved(encode(head[HEADER_BYTES:], payload), self._wire_device)
            first = as_tensor(head[:HEADER_BYTES])
        worker.traffic.sent(payload)
        self.packing_s += time.perf_counter() - started
        return first, body

    def _unpack(self, first: torch.Tensor, body: torch.Tensor | None, request: Recv[Any], where: Where) -> Payload:
        started = time.perf_counter()
        payload = self._as_expected(first, request, where) if body is None else None
        if payload is None:
            header = Header.decode(first, where.operation, where.step, request.tag, where)
            body = first[HEADER_BYTES:] if body is None else body
            payload = decode(self._moved(body, self._device), header)
            check_like(payload, request.like, where)
        self.packing_s += time.perf_counter() - started
        self._worker.traffic.received(payload)
        return payload

    def _moved(self, tensor: torch.Tensor, device: str) -> torch.Tensor:
        return tensor if self._device == "cpu" else tensor.to(device)

    def _as_expected(self, message: torch.Tensor, request: Recv[Any], where: Where) -> Payload | None:
        """Return the dense vector in a message, if one was expected and it begins with just the bytes it should."""
        if not isinstance(request.like, Dense):
            return None
        head = head_of(request.like, where.operation, where.step, request.tag)
        values = values_after(head, message, request.like)
        return None if values is None else Dense(self._moved(values, self._device))

    def _where(self, doing: str, peer: int, payload: Payload | None = None) -> Where:
        return Where(self._worker.rank, self._worker.operation, self._worker.step, doing, peer, payload)
