"""Sparse SGD over a parameter server: workers upload top-k entries with error feedback and receive the dense sum."""

from __future__ import annotations

from typing import ClassVar

from algorithms.compression import no_entries
from algorithms.feedback import ErrorFeedback, Feedback
from algorithms.selection import Selector
from algorithms.server import OverServer
from netsim.comm.payload import Vector
from netsim.comm.worker import Worker
from netsim.training.algorithm import Contribution
from netsim.training.sgd import SGDConfig


class ParameterServerTopK(ErrorFeedback, OverServer):
    """Workers upload T_k(γ g + e) and keep the rest as the residual e: "Sparse" in the SASG paper."""

    name = "ps-topk"
    title = "PS top-k"
    colour = "#3fa0d8"
    exchanges = "top-k with error feedback to a parameter server, the dense sum back"
    sends = "k values and indices to the server, d values back"
    same_parameters_as: ClassVar[str | None] = "topk"

    def __init__(
        self, selector: Selector, momentum_correction: SGDConfig | float = 0.0, serial_server: bool = False
    ) -> None:
        ErrorFeedback.__init__(self, selector, momentum_correction)
        OverServer.__init__(self, serial_server)

    async def exchange(
        self, worker: Worker, vector: Contribution | None, memory: Feedback, template: Vector
    ) -> tuple[Vector, Feedback]:
        """Return the sum (d,) of the workers' top-k entries, computed by the server."""
        local = None
        if vector is not None:
            local, memory = await self.compress(worker, vector, memory)
        return await self.sum_at_server(worker, local, template, upload_like=no_entries(template)), memory
