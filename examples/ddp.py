"""A simulated algorithm in DDP on gloo: the gradients of every backward pass are exchanged by gTop-k.

``torchrun --standalone --nproc-per-node 2 examples/ddp.py`` runs it on two ranks of this machine.
"""

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import netsim

if __name__ == "__main__":
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.ReLU(), torch.nn.Linear(256, 10))
    model = DistributedDataParallel(net)
    hook = netsim.ddp.register(model, "gtopk", density=0.01)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    torch.manual_seed(dist.get_rank())  # other mini-batches on every rank
    for _ in range(20):
        inputs = torch.randn(32, 64)
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(inputs), inputs[:, :10].argmax(1))
        loss.backward()
        optimizer.step()
    if dist.get_rank() == 0:
        print(f"loss {loss:.4f} after {hook.step} steps, {hook.bytes_sent} bytes sent by rank 0")
    dist.destroy_process_group()
