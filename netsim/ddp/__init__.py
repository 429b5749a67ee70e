"""Algorithms of netsim in a PyTorch training of your own, as a communication hook of DistributedDataParallel.

>>> import netsim
>>> hook = netsim.ddp.register(ddp_model, "gtopk", density=1e-3)  # doctest: +SKIP

The coroutine that was simulated then runs in every backward pass, over the ranks of the model's process group.
``docs/ddp.md`` has examples for plain torch, Hugging Face and Lightning.
"""

from netsim.ddp.hook import ExchangeHook
from netsim.ddp.register import register

__all__ = ["ExchangeHook", "register"]
