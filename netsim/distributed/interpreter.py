"""The interpreter over torch.distributed: one rank of a real cluster, on gloo, nccl or mpi."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from netsim._util.device import on_own_stream, wait_for_gpu
from netsim._util.errors import ProtocolError, UsageError
from netsim.comm.payload import Dense, Payload, check_like, has_known_size
from netsim.comm.pieces import InPieces
from netsim.comm.worker import EXPAND, Collective, Compute, Fork, Recv, Send, SendRecv, Sends, Start, Worker, evaluate
from netsim.distributed.overlap_threads import Backward, ForkedExchange
from netsim.distributed.rank_context import CURRENT_RANK
from netsim.distributed.transfers import (
    BODY,
    HEADER,
    RECEIPT,
    Announced,
    BothWays,
    Incoming,
    Outgoing,
    Received,
    Transfer,
    Where,
    transfer_tag,
    wait,
    whole_tag,
)
from netsim.distributed.wire_format import (
    HEADER_BYTES,
    Header,
    as_tensor,
    decode,
    encode,
    encode_dense,
    head_of,
    placed,
    room_for,
    values_after,
)
from netsim.simulator.timeline import Timeline
from netsim.training.buffers import on_device

T = TypeVar("T")
COMMUNICATION = (Send, Recv, SendRecv, Start, Outgoing, Incoming, Announced, BothWays, Received)
RECEIPTS_KEPT = 4096
"""Receipts kept until they are sent. The kernel sends a byte long before this many more receipts follow."""


class RankInterpreter:
    """Answers one rank's requests with torch.distributed, and times them.

    Bodies travel on the device (the GPU under nccl, else main memory), headers always through main memory. So under
    nccl the process group has both backends, ``cpu:gloo,cuda:nccl``.

    Parameters
    ----------
    worker
        The rank's worker.
    device, backend
        Where vectors are, and the backend of the process group.
    sends
        When a send is done: ``eager`` or ``rendezvous``.
    group
        The process group of the ranks; by default all processes.

    Attributes
    ----------
    packing_s : float
        Seconds spent on turning payloads into bytes and back.
    timeline : Timeline
        Times of this coroutine and of those that it forked, in seconds.
    """

    def __init__(
        self, worker: Worker, device: str, backend: str, sends: Sends = "eager", group: dist.ProcessGroup | None = None
    ) -> None:
        self._worker = worker
        # The group's own send and recv skip the look-ups that dist.isend and dist.irecv make at every call.
        group = dist.group.WORLD if group is None else group
        assert group is not None, "this process is not in the group"
        self._group = group
        self._device, self._backend, self._sends = device, backend, sends
        self._on_gpu = backend == "nccl"
        # Tags with a size in them exceed the bound that mpi guarantees.
        self._at_once = backend == "gloo"
        # Under nccl a receipt does not keep the stream from running ahead.
        self._acknowledged = sends == "rendezvous" and not self._on_gpu
        self._receiving: dict[tuple[int, int], Incoming] = {}
        self._started: list[Outgoing | Incoming] = []
        self._receipts: deque[Transfer] = deque(maxlen=RECEIPTS_KEPT)
        self._request: Any = None
        self._backward: ThreadPoolExecutor | None = None
        self.packing_s = 0.0
        self.timeline = Timeline()

    def run(self, program: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end, and return its result."""
        CURRENT_RANK.follow(self._worker, self._doing)
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
        """Return in words the request that is being answered."""
        match self._request:
            case Compute(work=work):
                return f"computing ({work})"
            case Send(dst=dst) | Start(Send(dst=dst)):
                return f"sending to rank {dst}"
            case Recv(src=src) | Start(Recv(src=src)):
                return f"receiving from rank {src}"
            case SendRecv(send=Send(dst=dst), recv=Recv(src=src)) | Start(
                SendRecv(send=Send(dst=dst), recv=Recv(src=src))
            ):
                return f"sending to rank {dst} and receiving from rank {src}"
            case Outgoing() | Incoming() | BothWays() | Received():
                return "waiting for a message that was started"
            case Fork() | ForkedExchange() | InPieces():
                return "computing (gradient) or exchanging its finished pieces"
        return ""

    def _answer(self, request: Any) -> Any:
        self._request = request
        match request:  # the most frequent first
            case SendRecv():
                return self._exchange(request)
            case Compute():
                return evaluate(request, self._compute)
            case Send():
                return self._start_send(request).finish()
            case Recv():
                return self._start_recv(request).finish()
            case Collective():
                return EXPAND
            case Outgoing() | Incoming() | BothWays() | Received():
                return request.finish()
            case Start(Send() as send):
                return self._under_way(self._start_send(send))
            case Start(Recv() as recv):
                return self._under_way(self._receive_in_background(recv))
            case Start(SendRecv() as both):
                return self._start_exchange(both)
            case Fork():
                return self._fork(request)
            case ForkedExchange():
                return request.finish()
            case InPieces():
                return self._in_pieces(request)
        raise ProtocolError(f"rank {self._worker.rank} awaited {request!r}, which is not a netsim request")

    def _compute(self, request: Compute[Any], args: list[Any]) -> Any:
        started = time.perf_counter()
        result = request.function(*args)
        wait_for_gpu(self._device)
        self.timeline.computed(request.work, started, time.perf_counter())
        return result

    def _fork(self, request: Fork[Any]) -> ForkedExchange | Received:
        """Answer the requests of a concurrent coroutine in a thread, or at once under nccl.

        Ranks fork in one order. In threads, nccl might begin exchanges in different orders at two ranks, and deadlock.
        """
        beside = RankInterpreter(request.worker, self._device, self._backend, self._sends, self._group)
        beside.timeline = self.timeline
        if self._on_gpu:
            return Received(beside._drive(request.coroutine))
        return ForkedExchange(partial(beside._drive, request.coroutine), self._device)

    def _in_pieces(self, request: InPieces) -> Backward:
        if self._backward is None:
            self._backward = self._backward_thread()
        return Backward(request, self._backward, self.timeline, self._device)

    def _backward_thread(self) -> ThreadPoolExecutor:
        """Return one thread for all steps: it keeps a copy of the model, and torch's number of threads and stream."""

        def begin(threads: int) -> None:
            torch.set_num_threads(threads)
            on_own_stream(self._device).__enter__()  # to the end of the thread

        return ThreadPoolExecutor(1, "backward", begin, (torch.get_num_threads(),))

    def warm_up(self, gradual: Callable[..., Any], *args: Any) -> None:
        """Compute a gradient in the thread of backward passes, whose first one would take longer than the others."""
        self._backward = self._backward_thread()
        self._backward.submit(gradual, lambda *_: None, *args).result()

    def _start_send(self, request: Send) -> Outgoing:
        outgoing = self._outgoing(request)
        outgoing.send_body()
        return outgoing

    def _outgoing(self, request: Send) -> Outgoing:
        where = self._where("sending to rank", request.dst, request.payload)
        tag, begin_body = request.tag, None
        if self._at_once and has_known_size(request.payload):
            message = self._pack_whole(request, where)
            first_tag = whole_tag(tag, message.nbytes)
        else:
            message, body = self._pack(request, where)
            first_tag = transfer_tag(tag, HEADER)
            if body.numel():
                begin_body = partial(Transfer, self._group.send, body, transfer_tag(tag, BODY), where)
        transfers = []
        if self._acknowledged:
            byte = torch.empty(1, dtype=torch.uint8)
            transfers.append(Transfer(self._group.recv, byte, transfer_tag(tag, RECEIPT), where))
        transfers.append(Transfer(self._group.send, message, first_tag, where))
        return Outgoing(transfers, begin_body)

    def _start_recv(self, request: Recv[Any]) -> Incoming:
        """Post the receive of a whole message, or of its header; gloo moves no data before a receive is posted."""
        where = self._where("receiving from rank", request.src, request.template)
        acknowledge = partial(self._acknowledge, request, where) if self._acknowledged else None
        if self._at_once and has_known_size(request.template):
            room = room_for(request.template)
            message = Transfer(self._group.recv, room, whole_tag(request.tag, room.nbytes), where)
            return Incoming(message, partial(self._unpack_whole, request, where), acknowledge)
        return self._start_announced(request, where, acknowledge)

    def _start_announced(self, request: Recv[Any], where: Where, acknowledge: Callable[[], None] | None) -> Announced:
        channel, tag = (request.src, request.tag), request.tag
        if (earlier := self._receiving.get(channel)) is not None:
            earlier.finish()  # headers and bodies of one channel must alternate

        def body_after(header: torch.Tensor) -> Transfer | None:
            size = Header.decode(header, where.operation, where.step, tag, where).body_bytes
            body = torch.empty(size, dtype=torch.uint8, device=self._wire_device)
            return Transfer(self._group.recv, body, transfer_tag(tag, BODY), where) if size else None

        def unpack(header: torch.Tensor, body: torch.Tensor) -> Payload:
            del self._receiving[channel]
            return self._unpack(request, where, header, body)

        room = torch.empty(HEADER_BYTES, dtype=torch.uint8)
        header = Transfer(self._group.recv, room, transfer_tag(tag, HEADER), where)
        self._receiving[channel] = announced = Announced(header, body_after, unpack, acknowledge)
        return announced

    def _acknowledge(self, request: Recv[Any], where: Where) -> None:
        byte = torch.zeros(1, dtype=torch.uint8)
        self._receipts.append(Transfer(self._group.send, byte, transfer_tag(request.tag, RECEIPT), where))

    def _receive_in_background(self, request: Recv[Any]) -> Incoming:
        incoming = self._start_recv(request)
        if not self._on_gpu:
            incoming.in_background()
        return incoming

    def _under_way(self, message: Outgoing | Incoming) -> Outgoing | Incoming:
        """Return a message that was started; under nccl, raise UsageError if another one goes the other way.

        nccl runs them one after the other. Two ranks that send to each other before they receive would wait for ever.
        """
        if self._on_gpu:
            self._started = [each for each in self._started if not each.done]
            if any(isinstance(each, Outgoing) != isinstance(message, Outgoing) for each in self._started):
                raise UsageError(
                    f"{self._worker.operation} sends and receives several messages at the same time, which backend "
                    "'nccl' runs one after the other; use --backend gloo"
                )
            self._started.append(message)
        return message

    def _exchange(self, request: SendRecv[Any]) -> Payload:
        if self._on_gpu:
            return self._exchange_bodies_at_once(request)
        payload: Payload = self._begin_exchange(request).finish()
        return payload

    def _start_exchange(self, request: SendRecv[Any]) -> BothWays | Received:
        if self._on_gpu:  # finished here, since nccl may deadlock where several exchanges are under way
            return Received(self._exchange_bodies_at_once(request))
        both = self._begin_exchange(request)
        both.incoming.in_background()
        return both

    def _begin_exchange(self, request: SendRecv[Any]) -> BothWays:
        incoming = self._start_recv(request.recv)
        outgoing = self._outgoing(request.send)
        if request.send.dst == request.recv.src:
            # One connection carries both, so our ready notice must not queue behind our own body.
            incoming.make_ready()
        outgoing.send_body()
        return BothWays(incoming, outgoing)

    def _exchange_bodies_at_once(self, request: SendRecv[Any]) -> Payload:
        """Exchange under nccl, in one batch: nccl would run a separate send and receive one after the other."""
        send, recv = request.send, request.recv
        sending = self._where("sending to rank", send.dst, send.payload)
        receiving = self._where("receiving from rank", recv.src, recv.template)
        header, body = self._pack(send, sending)
        words = torch.empty(HEADER_BYTES, dtype=torch.uint8)
        headers = [
            Transfer(self._group.recv, words, transfer_tag(recv.tag, HEADER), receiving),
            Transfer(self._group.send, header, transfer_tag(send.tag, HEADER), sending),
        ]
        for transfer in headers:
            transfer.wait()
        theirs = Header.decode(words, receiving.operation, receiving.step, recv.tag, receiving)
        buffer = torch.empty(theirs.body_bytes, dtype=torch.uint8, device=self._wire_device)
        batch = [self._operation(dist.isend, body, send.dst)] if body.numel() else []
        batch += [self._operation(dist.irecv, buffer, recv.src)] if buffer.numel() else []
        for work in dist.batch_isend_irecv(batch) if batch else ():
            wait(work, receiving)
        return self._unpack(recv, receiving, words, buffer)

    def _operation(self, kind: Callable[..., Any], tensor: torch.Tensor, peer: int) -> dist.P2POp:
        return dist.P2POp(kind, tensor, dist.get_global_rank(self._group, peer), self._group)

    @property
    def _wire_device(self) -> str:
        return self._device if self._on_gpu else "cpu"

    def _pack(self, request: Send, where: Where) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the header and the body of a message."""
        started = time.perf_counter()
        head = head_of(request.payload, where.operation, where.step, request.tag)
        body = self._moved(encode(head[HEADER_BYTES:], request.payload), self._wire_device)
        self._worker.traffic.sent(request.payload)
        self.packing_s += time.perf_counter() - started
        return as_tensor(head[:HEADER_BYTES]), body

    def _pack_whole(self, request: Send, where: Where) -> torch.Tensor:
        """Return the whole message of a payload whose size its receiver knows."""
        started = time.perf_counter()
        payload = request.payload
        head = head_of(payload, where.operation, where.step, request.tag)
        if isinstance(payload, Dense):
            message = encode_dense(head, self._moved(payload.values, "cpu"))
        else:
            message = as_tensor(head)
        self._worker.traffic.sent(payload)
        self.packing_s += time.perf_counter() - started
        return message

    def _unpack(self, request: Recv[Any], where: Where, header: torch.Tensor, body: torch.Tensor) -> Payload:
        """Return the payload of a message; raise ProtocolError if it is not like the template."""
        started = time.perf_counter()
        payload = decode(body, Header.decode(header, where.operation, where.step, request.tag, where))
        check_like(payload, request.template, where)
        if self._device != "cpu":
            payload = placed(payload, request.template)
        self.packing_s += time.perf_counter() - started
        self._worker.traffic.received(payload)
        return payload

    def _unpack_whole(self, request: Recv[Any], where: Where, message: torch.Tensor) -> Payload:
        started = time.perf_counter()
        template = request.template
        if isinstance(template, Dense):
            # All but the values of the expected vector is known, so it is compared, not decoded.
            head = head_of(template, where.operation, where.step, request.tag)
            if (values := values_after(head, message, template)) is not None:
                payload = Dense(values if self._device == "cpu" else on_device(values, template.values.device))
                self.packing_s += time.perf_counter() - started
                self._worker.traffic.received(payload)
                return payload
        raw = message.view(torch.uint8)
        return self._unpack(request, where, raw[:HEADER_BYTES], raw[HEADER_BYTES:])

    def _moved(self, tensor: torch.Tensor, device: str) -> torch.Tensor:
        return tensor if self._device == "cpu" else tensor.to(device)

    def _where(self, doing: str, peer: int, payload: Payload | None = None) -> Where:
        return Where(self._worker.rank, self._worker.operation, self._worker.step, doing, peer, payload)
