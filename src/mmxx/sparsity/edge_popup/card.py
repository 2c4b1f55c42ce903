"""What edge-popup is and what its paper claims."""

from mmxx.lab.catalog import Card, Claim, Paper, at_least, at_most

_ABSTRACT = (
    "Abstract: a subnetwork of a random Wide ResNet-50 matches a trained ResNet-34 on ImageNet "
    "(73.3 % top-1 at 30 % of the weights, says the authors' repository)"
)
_DIGITS = (
    "A perceptron of 64-400-400-10 on 1,433 digits of 8 × 8 pixels, 30 epochs; both networks have "
    "the same width, where the paper's random one is larger than the trained one."
)

CARD = Card(
    name="edge_popup",
    title="Edge-popup",
    paper=Paper(
        title="What's Hidden in a Randomly Weighted Neural Network?",
        authors=(
            "Vivek Ramanujan",
            "Mitchell Wortsman",
            "Aniruddha Kembhavi",
            "Ali Farhadi",
            "Mohammad Rastegari",
        ),
        venue="CVPR",
        year=2020,
        url="https://arxiv.org/abs/1911.13299",
        arxiv="1911.13299",
    ),
    summary=(
        "Finds a network that does the task inside a random one, without training a weight: "
        "every edge has a score, the fraction $k$ of the largest is used, and the score follows "
        "the gradient of the edge's use. What is found is a seed and one bit for each weight."
    ),
    claims=(
        Claim(
            id="matches-trained",
            text="A network hidden in a random one is as good as a trained network.",
            where=_ABSTRACT,
            paper=None,
            bars={"quick": at_least(-0.5), "full": at_least(-0.5)},
            unit="points over the trained network, k = 0.3",
            scaled=_DIGITS,
            sham=True,
        ),
        Claim(
            id="untrained-fails",
            text="The same random network is no good before its edges are chosen.",
            where="The premise: the weights are random, and only the choice of edges is learned",
            paper=None,
            bars={"quick": at_most(25), "full": at_most(25)},
            unit="per cent right, 10 classes",
            scaled=_DIGITS,
        ),
        Claim(
            id="weights-untouched",
            text="No weight changes: after training every one has the bits that it was drawn with.",
            where="The method: weights are never updated, scores are",
            paper=None,
            bars={"quick": at_most(0), "full": at_most(0)},
            unit="weights with other bits than before",
            scaled="Not smaller: an identity.",
        ),
        Claim(
            id="width",
            text="The wider the random network, the better the network hidden in it.",
            where="Abstract: as networks grow wider and deeper; the experiments on width",
            paper=None,
            bars={"full": at_least(0.1)},
            unit="points from one width to the next, where they rise least",
            scaled=(
                "Perceptrons with two hidden layers of 50 to 1,000 units on digits, at half of "
                "unscaled signed constants, 10 seeds; the paper widens convolutional networks on "
                "CIFAR-10."
            ),
            sham=True,
        ),
        Claim(
            id="conv-matches-trained",
            text="A convolutional network hidden in a random one is as good as a trained one.",
            where="The experiments with Conv-2 to Conv-8 on CIFAR-10",
            paper=None,
            bars={"full": at_least(-0.5)},
            unit="points over the trained network, k = 0.3",
            scaled=(
                "A Conv-4 half as wide, batch-normalised without parameters, on 3,200 patches of "
                "16 photographs, 3 seeds."
            ),
            sham=True,
        ),
        Claim(
            id="mnist-matches-trained",
            text="A network hidden in a random one is as good as a trained network, on MNIST.",
            where=_ABSTRACT,
            paper=None,
            bars={"quick": at_least(-0.5), "full": at_least(-0.5)},
            unit="points over the trained network, k = 0.3",
            scaled="A perceptron of 784-400-400-10 on 8,000 of the 10,000 MNIST test images.",
            sham=True,
            data_sha256="8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        ),
    ),
    api=(
        "mmxx.sparsity.edge_popup:EdgePopup",
        "mmxx.sparsity.edge_popup:EdgePopupClassifier",
        "mmxx.sparsity.edge_popup:Ticket",
        "mmxx.sparsity.edge_popup:annealed",
        "mmxx.sparsity.edge_popup:frozen_weight",
        "mmxx.sparsity.edge_popup:load_ticket",
    ),
    experiment="mmxx.sparsity.edge_popup.experiment:run",
    extra="torch",
    departs=(
        "Scaled weights are multiplied by $\\sqrt{1/k}$, as the paper has it; the authors' code "
        "scales by $1/(1-k)$ under the root, which is the same at $k = 0.5$ only.",
        "Of equal scores the one of lower index is dropped, so that a mask is never ambiguous.",
        "Weights and scores come from a generator that gives the same bits on every machine.",
        "In a transposed convolution the inputs of an output are counted as they arrive there, "
        "not by the shape of its weight.",
        "The classifier adds a column of ones to its inputs, since the layers have no biases.",
    ),
    scale=frozenset({"map"}),
)
