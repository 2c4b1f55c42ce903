from .bpe import ByteBPE as ByteBPE
from .cleaning import Quality as Quality
from .cleaning import dedup as dedup
from .cleaning import minhash as minhash
from .contamination import Contamination as Contamination
from .contamination import Report as Report
from .contamination import decontaminate as decontaminate
from .documents import Documents as Documents
from .documents import bayes_accuracy as bayes_accuracy
from .evaluation import Result as Result
from .evaluation import evaluate as evaluate
from .generation import Generation as Generation
from .generation import generate as generate
from .likelihood import Likelihood as Likelihood
from .likelihood import loglikelihoods as loglikelihoods
from .model import GPT as GPT
from .model import PRESETS as PRESETS
from .model import GPTConfig as GPTConfig
from .model import KVCache as KVCache
from .packing import Mixture as Mixture
from .packing import PackedDataset as PackedDataset
from .packing import PackedSequences as PackedSequences
from .packing import read_documents as read_documents
from .scaling import ScalingFit as ScalingFit
from .scaling import frontier as frontier
from .scaling import scaling_fit as scaling_fit
from .sharding import WholeState as WholeState
from .sharding import shard as shard
from .sharding import whole_state as whole_state
from .tasks import TASKS as TASKS
from .tasks import Example as Example
from .tasks import Task as Task
from .throughput import mfu as mfu
from .throughput import peak_flops as peak_flops
from .training import Schedule as Schedule
from .training import Step as Step
from .training import Training as Training
from .training import train as train
from .training import validation_loss as validation_loss

__all__ = [
    "GPT",
    "PRESETS",
    "TASKS",
    "ByteBPE",
    "Contamination",
    "Documents",
    "Example",
    "GPTConfig",
    "Generation",
    "KVCache",
    "Likelihood",
    "Mixture",
    "PackedDataset",
    "PackedSequences",
    "Quality",
    "Report",
    "Result",
    "ScalingFit",
    "Schedule",
    "Step",
    "Task",
    "Training",
    "WholeState",
    "bayes_accuracy",
    "decontaminate",
    "dedup",
    "evaluate",
    "frontier",
    "generate",
    "loglikelihoods",
    "mfu",
    "minhash",
    "peak_flops",
    "read_documents",
    "scaling_fit",
    "shard",
    "train",
    "validation_loss",
    "whole_state",
]
