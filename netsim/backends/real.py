"""The interpreter over torch.distributed: one rank of a real cluster, on gloo, nccl or mpi."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from netsim.backends.wire import HEADER_WORDS, Header, decode, encode
from netsim.errors import NetsimError, ProtocolError
from netsim.payload import Bundle, Payload, check_like
from netsim.worker import EXPAND, Collective, Compute, Handle, Recv, Send, SendRecv, Start, Worker, evaluate

T = TypeVar("T")


class Underway(Handle[Any]):
    """A send or receive that was started; `finish` waits for it and returns its answer."""

    __slots__ = ("finish",)

    def __init__(self, finish: Callable[[], Any]) -> None:
        self.finish = finish


class Real:
    """Answers one rank's requests with torch.distributed, and keeps its clock.

    Bodies travel on `device` (the GPU under nccl, otherwise main memory), headers always through
    main memory: under nccl the process group has both backends, ``cpu:gloo,cuda:nccl``.
    """

    def __init__(self, worker: Worker, device: str, backend: str) -> None:
        self._worker = worker
        self._device = device
        self._on_gpu = backend == "nccl"
        self._receiving: dict[tuple[int, int], Underway] = {}
        self.seconds: defaultdict[str, float] = defaultdict(float)

    def run(self, program: Coroutine[Any, Any, T]) -> T:
        """Drive `program` to its end and return its result."""
        answer = None
        try:
            while True:
                answer = self._answer(program.send(answer))
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        finally:
            program.close()

    def _answer(self, request: Any) -> Any:
        match request:
            case Collective():
                return EXPAND
            case Compute():
                return evaluate(request, self._compute)
            case Underway():
                return request.finish()
            case Start(Send() as send):
                return self._start_send(send)
            case Start(Recv() as recv):
                return self._start_recv(recv)
            case Send():
                return self._start_send(request).finish()
            case Recv():
                return self._start_recv(request).finish()
            case SendRecv():
                return self._exchange(request)
        raise ProtocolError(f"rank {self._worker.rank} awaited {request!r}, which is not a netsim request")

    def _compute(self, request: Compute[Any], args: list[Any]) -> Any:
        started = time.perf_counter()
        result = request.function(*args)
        if self._device.startswith("cuda"):
            torch.cuda.synchronize(self._device)
        self.seconds[request.work] += time.perf_counter() - started
        return result

    def _start_send(self, request: Send) -> Underway:
        header, body = self._pack(request)
        # Held with their tensors, which must live until they are sent.
        sent = [(self._isend(header, request.dst, 2 * request.tag), header)]
        if body.numel():
            sent.append((self._isend(body, request.dst, 2 * request.tag + 1), body))
        where = self._where(f"sending to rank {request.dst}")

        def finish() -> None:
            for work, _ in sent:
                self._wait(work, where)
            sent.clear()

        return Underway(finish)

    def _start_recv(self, request: Recv[Any]) -> Underway:
        """Post the receive of the header: gloo moves no data before the receiver is ready."""
        channel = (request.src, request.tag)
        if (earlier := self._receiving.get(channel)) is not None:
            earlier.finish()  # headers and bodies of one channel must come in turn
        where = self._where(f"receiving from rank {request.src}")
        operation, step = self._worker.operation, self._worker.step
        words = torch.empty(HEADER_WORDS, dtype=torch.int64)
        posted = self._irecv(words, request.src, 2 * request.tag)
        received: list[Payload] = []

        def finish() -> Payload:
            if not received:
                self._wait(posted, where)
                header = Header.decode(words, operation, step, request.tag, where)
                body = torch.empty(header.body_bytes, dtype=torch.uint8, device=self._wire_device)
                if header.body_bytes:
                    self._wait(self._irecv(body, request.src, 2 * request.tag + 1), where)
                received.append(self._unpack(body, header, request, where))
                self._receiving.pop(channel, None)
            return received[0]

        self._receiving[channel] = Underway(finish)
        return self._receiving[channel]

    def _exchange(self, request: SendRecv[Any]) -> Payload:
        if not self._on_gpu:
            incoming = self._start_recv(request.recv)
            outgoing = self._start_send(request.send)
            payload = incoming.finish()
            outgoing.finish()
            return payload  # type: ignore[no-any-return]
        # nccl runs a pair's sends and receives one after the other, so both bodies go as one batch.
        send, recv = request.send, request.recv
        where = self._where(f"exchanging with ranks {send.dst} and {recv.src}")
        header, body = self._pack(send)
        words = torch.empty(HEADER_WORDS, dtype=torch.int64)
        headers = [self._irecv(words, recv.src, 2 * recv.tag), self._isend(header, send.dst, 2 * send.tag)]
        for work in headers:
            self._wait(work, where)
        theirs = Header.decode(words, self._worker.operation, self._worker.step, recv.tag, where)
        buffer = torch.empty(theirs.body_bytes, dtype=torch.uint8, device=self._wire_device)
        batch = [dist.P2POp(dist.isend, body, send.dst)] if body.numel() else []
        batch += [dist.P2POp(dist.irecv, buffer, recv.src)] if buffer.numel() else []
        for work in dist.batch_isend_irecv(batch) if batch else ():
            self._wait(work, where)
        return self._unpack(buffer, theirs, recv, where)

    @property
    def _wire_device(self) -> str:
        return self._device if self._on_gpu else "cpu"

    def _pack(self, request: Send) -> tuple[torch.Tensor, torch.Tensor]:
        body, parts = encode(request.payload)
        bundled = isinstance(request.payload, Bundle)
        header = Header(self._worker.operation, self._worker.step, request.tag, parts, bundled, body.numel())
        self._worker.traffic.sent(request.payload)
        return header.encode(), body.to(self._wire_device)

    def _unpack(self, body: torch.Tensor, header: Header, request: Recv[Any], where: str) -> Payload:
        payload = decode(body.to(self._device), header)
        check_like(payload, request.like, where)
        self._worker.traffic.received(payload)
        return payload

    def _isend(self, tensor: torch.Tensor, dst: int, tag: int) -> dist.Work:
        return self._posted(dist.isend(tensor, dst, tag=tag))

    def _irecv(self, tensor: torch.Tensor, src: int, tag: int) -> dist.Work:
        return self._posted(dist.irecv(tensor, src, tag=tag))

    @staticmethod
    def _posted(work: dist.Work | None) -> dist.Work:
        assert work is not None, "this process is not in the group"
        return work

    @staticmethod
    def _wait(work: dist.Work, where: str) -> None:
        try:
            work.wait()
        except RuntimeError as error:
            raise NetsimError(f"{where}: {str(error).splitlines()[0]}") from error

    def _where(self, doing: str) -> str:
        return f"rank {self._worker.rank}, {self._worker.operation}, step {self._worker.step}, {doing}"
