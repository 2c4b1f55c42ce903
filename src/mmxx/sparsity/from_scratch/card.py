"""What pruning from scratch is and what its paper claims."""

from mmxx.lab.catalog import Card, Claim, Paper, at_least, at_most

_DIGITS = (
    "Six convolutions of 0.60 million multiply-adds on 8 × 8 digits, gates learnt on 1.5 times the "
    "width; the paper prunes VGG, ResNet and MobileNet on CIFAR-10 and ImageNet. The quick tier "
    "trains every arm for equal epochs, the full tier by the paper's budget."
)
_PATCHES = (
    "The same six convolutions on 16 × 16 patches of 16 photographs, 2.4 million multiply-adds, "
    "trained by the paper's budget; the paper prunes VGG, ResNet and MobileNet on CIFAR-10 and "
    "ImageNet."
)
_RESULTS = "Abstract: similar or higher accuracy under the same computation budgets"
_BETTER = "Abstract: structures from random weights include models with better performance"
_DIVERSE = "Abstract: more diverse structures can be pruned from random weights"
_PRUNED = "Introduction: pruning is to reduce model size and run-time latency"

CARD = Card(
    name="from_scratch",
    title="Pruning from scratch",
    paper=Paper(
        title="Pruning from Scratch",
        authors=(
            "Yulong Wang",
            "Xiaolu Zhang",
            "Lingxi Xie",
            "Jun Zhou",
            "Hang Su",
            "Bo Zhang",
            "Xiaolin Hu",
        ),
        venue="AAAI",
        year=2020,
        url="https://arxiv.org/abs/1909.12579",
        arxiv="1909.12579",
    ),
    summary=(
        "Which channels a network needs can be learnt before its weights are: on random weights, "
        "which stay as they are, every channel gets a gate $g \\in [0, 1]$. The structure for a "
        "budget is cut out, its tensors really smaller, and trained from new weights."
    ),
    claims=(
        Claim(
            id="half",
            text=(
                "At half the multiply-adds a structure found on random weights and trained from "
                "scratch is as good as the full network."
            ),
            where=_RESULTS,
            paper=None,
            bars={"quick": at_least(-1.0), "full": at_least(-0.3)},
            unit="points over the full network",
            scaled=_DIGITS,
        ),
        Claim(
            id="burden",
            text="Without training first, the structure is found for half the work or less.",
            where="Abstract: greatly reduces the pre-training burden of traditional pruning",
            paper=None,
            bars={"quick": at_most(0.5), "full": at_most(0.5)},
            unit="× the multiply-adds of finding a structure on a trained network",
            scaled=(
                "5 epochs of gates beside a training of 15; the paper has 10 beside 160. A step of "
                "training counts three times the forward pass, a step of gates twice."
            ),
            sham=True,
        ),
        Claim(
            id="tenth-pretrained",
            text=(
                "At a tenth of the multiply-adds structures found on random weights are better "
                "than structures found on a trained network."
            ),
            where=_BETTER,
            paper=None,
            bars={"full": at_least(0.5)},
            unit="points over structures from trained weights",
            scaled=_DIGITS,
            sham=True,
        ),
        Claim(
            id="tenth-full",
            text="At a tenth of the multiply-adds little is lost.",
            where=_RESULTS,
            paper=None,
            bars={"full": at_least(-2.0)},
            unit="points over the full network",
            scaled=_DIGITS,
        ),
        Claim(
            id="diverse",
            text="Structures from random weights differ more from seed to seed.",
            where=_DIVERSE,
            paper=None,
            bars={"full": at_least(1.1)},
            unit="× the spread of structures from trained weights",
            scaled=_DIGITS,
            sham=True,
        ),
        Claim(
            id="shrinks",
            text="Plain, residual and depthwise networks shrink to half their multiply-adds.",
            where=_PRUNED,
            paper=None,
            bars={"quick": at_most(0.5), "full": at_most(0.5)},
            unit="of the multiply-adds left, on the worst of three networks",
            scaled="Small networks; what is counted are the tensors of the new modules.",
        ),
        Claim(
            id="same-function",
            text="With its weights, a smaller network computes what the masked one does.",
            where=_PRUNED,
            paper=None,
            bars={"quick": at_most(1e-5), "full": at_most(1e-5)},
            unit="largest difference of outputs, on three networks",
            scaled="Not smaller: an identity.",
        ),
        Claim(
            id="patches-half",
            text="On patches, too, half the multiply-adds do as well as the full network.",
            where=_RESULTS,
            paper=None,
            bars={"full": at_least(-0.3)},
            unit="points over the full network",
            scaled=_PATCHES,
        ),
        Claim(
            id="patches-tenth-pretrained",
            text=(
                "On patches, too, structures of a tenth of the multiply-adds are better when found "
                "on random weights."
            ),
            where=_BETTER,
            paper=None,
            bars={"full": at_least(0.5)},
            unit="points over structures from trained weights",
            scaled=_PATCHES,
            sham=True,
        ),
        Claim(
            id="patches-tenth-full",
            text="On patches, too, little is lost at a tenth of the multiply-adds.",
            where=_RESULTS,
            paper=None,
            bars={"full": at_least(-2.0)},
            unit="points over the full network",
            scaled=_PATCHES,
        ),
    ),
    api=(
        "mmxx.sparsity.from_scratch:learn_gates",
        "mmxx.sparsity.from_scratch:Gates",
        "mmxx.sparsity.from_scratch:ChannelGraph",
        "mmxx.sparsity.from_scratch:Group",
        "mmxx.sparsity.from_scratch:Structure",
        "mmxx.sparsity.from_scratch:search",
        "mmxx.sparsity.from_scratch:uniform",
        "mmxx.sparsity.from_scratch:random_widths",
        "mmxx.sparsity.from_scratch:spread",
        "mmxx.sparsity.from_scratch:prune_channels",
        "mmxx.sparsity.from_scratch:reset",
        "mmxx.sparsity.from_scratch:gating",
        "mmxx.sparsity.from_scratch:cost",
        "mmxx.sparsity.from_scratch:Cost",
        "mmxx.sparsity.from_scratch:macs",
        "mmxx.sparsity.from_scratch:latency",
        "mmxx.sparsity.from_scratch:scratch_budget",
    ),
    experiment="mmxx.sparsity.from_scratch.experiment:run",
    extra="torch",
    departs=(
        "The channels past residual blocks may go too, all writers together; the paper keeps them "
        "whole (residual=False).",
        "A gate acts behind the depthwise convolution of its channel as well, whose batch "
        "normalisation would undo a gate that stands only before it.",
        "The search is exact, never above the budget, and leaves each layer a channel or more; the "
        "authors' bisection stops after 10 steps and can empty a layer.",
        "Among equal gates every layer gives way in proportion to its width.",
        "Our experiment learns gates at a rate of 0.05 for few epochs, since its data are few; "
        "0.01 and 10 epochs, the paper's, are the defaults.",
    ),
    scale=frozenset({"ddp", "map"}),
)
