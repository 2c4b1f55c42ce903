"""Several processes that train one model together, through lightning-fabric.

``mmxx run NAME --devices 2`` starts the other processes on this machine; started under
``torchrun``, on one machine or several, a run joins that process group instead. Rank 0 alone
writes; all ranks read the run's folder, which several machines must share.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from mmxx.lab.catalog import Card
from mmxx.lab.errors import BadInputError, MissingExtraError

if TYPE_CHECKING:
    import torch


def wanted(devices: int) -> bool:
    """Whether a run is one of several processes, or is to start them."""
    return devices > 1 or "TORCHELASTIC_RUN_ID" in os.environ


def is_first() -> bool:
    """Whether this process is the one that writes, known before the others are met."""
    return os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")) == "0"


class Team:
    """The processes of one run.

    Attributes:
        rank: The number of this process; 0 is the one that writes.
        size: How many there are.
    """

    def __init__(self, card: Card, devices: int, device: str) -> None:
        """Start the other processes, or join those that torchrun started.

        Raises:
            BadInputError: The system cannot be spread over processes.
            MissingExtraError: lightning-fabric is not installed.
        """
        if "ddp" not in card.scale:
            raise BadInputError(f"{card.name} does not train on several devices; leave --devices 1")
        try:
            fabric: Any = importlib.import_module("lightning_fabric")
            strategies: Any = importlib.import_module("lightning_fabric.strategies")
        except ImportError as error:
            raise MissingExtraError(
                "--devices needs lightning-fabric. Install it with: pip install 'mmxx[cluster]'"
            ) from error
        torch: Any = importlib.import_module("torch")
        cuda = device == "cuda" or (device == "auto" and torch.cuda.is_available())
        here = int(os.environ.get("LOCAL_WORLD_SIZE", devices))
        nodes = int(os.environ.get("WORLD_SIZE", here)) // here
        strategy = strategies.DDPStrategy(
            process_group_backend="nccl" if cuda else "gloo", start_method="popen"
        )
        self._fabric = fabric.Fabric(
            accelerator="cuda" if cuda else "cpu", devices=here, num_nodes=nodes, strategy=strategy
        )
        self._fabric.launch()
        self.rank: int = self._fabric.global_rank
        self.size: int = self._fabric.world_size

    def share(self, value: Any) -> Any:
        """Rank 0's value, in every process."""
        return self._fabric.broadcast(value, src=0)

    def wait(self) -> None:
        """Go on only when every process has come here."""
        self._fabric.barrier()

    def set_up(
        self, net: torch.nn.Module, optimizer: torch.optim.Optimizer
    ) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
        """A module whose gradients are averaged over the processes, and its optimizer."""
        return self._fabric.setup(net, optimizer)

    def part(self, batch: torch.Tensor) -> torch.Tensor:
        """This process's equal part of a global batch, along the first axis.

        Parts are equal, so that the average of the parts' mean losses is the mean loss.

        Raises:
            BadInputError: The batch cannot be shared equally.
        """
        length, rest = divmod(len(batch), self.size)
        if rest or not length:
            raise BadInputError(
                f"--devices must divide a batch of {len(batch)} equally, and {self.size} does not"
            )
        return batch[self.rank * length : (self.rank + 1) * length]

    def mean(self, value: torch.Tensor) -> float:
        """The mean of a number over the processes, in every process."""
        return self._fabric.all_reduce(value.detach().clone(), reduce_op="mean").item()

    def close(self) -> None:
        """Leave the process group."""
        distributed: Any = importlib.import_module("torch.distributed")
        if distributed.is_initialized():
            distributed.destroy_process_group()
