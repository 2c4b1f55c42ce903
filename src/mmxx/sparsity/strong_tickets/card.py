"""What constructive strong lottery tickets are and what their papers claim."""

from mmxx.lab.catalog import Card, Claim, Paper, at_least, at_most

_DIGITS = (
    "Networks with biases trained on 1,433 digits of 8 × 8 pixels and compared on 364, 3 seeds: "
    "64-32-10, at full scale 64-500-10; the paper takes a 784-500-10 network without biases, "
    "trained on MNIST."
)
_CONV = (
    "Two convolutions of 6 channels, at full scale 12, with a pooling and a linear layer, biases "
    "throughout, on the same digits, 3 seeds."
)
_LUEKER = (
    "1,000 sets of random numbers, each judged for all targets in [-1/2, 1/2] at once; tolerances "
    "of 0.1 to 0.005, at full scale to 0.0005. The count is interpolated between whole numbers."
)
_AUTHORS = "Not smaller: the authors' own network and test pictures, the weights of one seed."
_MNIST = "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"
_EXPERIMENT_1 = "The table of experiment 1 (subset sum); the authors' log fc2_approx.out"

CARD = Card(
    name="strong_tickets",
    title="Strong lottery tickets, constructed",
    paper=Paper(
        title=(
            "Optimal Lottery Tickets via SubsetSum: Logarithmic Over-Parameterization is Sufficient"
        ),
        authors=(
            "Ankit Pensia",
            "Shashank Rajput",
            "Alliot Nagle",
            "Harit Vishwakarma",
            "Dimitris Papailiopoulos",
        ),
        venue="NeurIPS",
        year=2020,
        url="https://arxiv.org/abs/2006.07990",
        arxiv="2006.07990",
    ),
    summary=(
        "A mask over random weights that computes what a trained network computes, found instead "
        "of trained: each weight is a sum of a few random products, and $O(\\log 1/\\epsilon)$ "
        "of them to choose from suffice. By exact subset sum in seconds, or greedily by the "
        "golden ratio; saved as a seed and bits, with a proved bound on the output."
    ),
    claims=(
        Claim(
            id="same-accuracy",
            text="A masked random network has the accuracy of the trained one, without training.",
            where=_EXPERIMENT_1 + ": 97.19 and 97.19 per cent",
            paper=0.0,
            bars={"quick": at_most(1), "full": at_most(1)},
            unit="of 364 test pictures between the two accuracies, worst seed",
            scaled=_DIGITS,
            sham=True,
        ),
        Claim(
            id="convolutions",
            text="So has a masked random network in the place of a convolutional one.",
            where="Ours: the paper's theorem is for linear layers",
            paper=None,
            bars={"quick": at_most(1), "full": at_most(1)},
            unit="of 364 test pictures between the two accuracies, worst seed",
            scaled=_CONV,
            sham=True,
        ),
        Claim(
            id="golden-ratio",
            text="The accuracy stays where weights are decomposed greedily, by the golden ratio.",
            where="Orseau et al., Logarithmic Pruning is All You Need (2020): the main theorem",
            paper=None,
            bars={"quick": at_most(1), "full": at_most(1)},
            unit="of 364 test pictures between the two accuracies, worst seed",
            scaled=_DIGITS,
            sham=True,
        ),
        Claim(
            id="weights-within-eps",
            text="Every weight and bias is within $\\epsilon = 0.01$ of the trained one.",
            where="Theorem 1; " + _EXPERIMENT_1 + ": all weights within 0.01",
            paper=0.01,
            bars={"quick": at_most(0.01), "full": at_most(0.01)},
            unit="largest error of a weight in any ticket",
            scaled=_DIGITS,
            sham=True,
        ),
        Claim(
            id="log-law",
            text="The random numbers needed grow as a straight line in $\\log_2 1/\\epsilon$.",
            where="Corollary of Lueker (1998), on which theorem 1 rests",
            paper=None,
            bars={"quick": at_least(0.98), "full": at_least(0.98)},
            unit="R² of the line through the numbers that suffice in 95 per cent of cases",
            scaled=_LUEKER,
        ),
        Claim(
            id="golden-lemma",
            text=(
                "One number from each of k golden bins leaves at most $\\gamma^{k-1}$ of any "
                "number in [0, 1]."
            ),
            where="Orseau et al. (2020): the golden-ratio decomposition",
            paper=None,
            bars={"quick": at_most(1.61804), "full": at_most(1.61804)},
            unit="left at most, in units of $\\gamma^k$ ($1/\\gamma = 1.61803$ is proved)",
            scaled="20,000 random sets of numbers and targets, at full scale 1,000,000.",
        ),
        Claim(
            id="bound-holds",
            text="No output is further off than the bound that is proved for all inputs.",
            where="The proof of theorem 1, by products of norms",
            paper=None,
            bars={"quick": at_most(1), "full": at_most(1)},
            unit="share of the bound that an output on the test pictures reaches",
            scaled=_DIGITS,
        ),
        Claim(
            id="seed-and-bits",
            text="The ticket is a seed and bits: its weights are made again bit by bit.",
            where="The definition of a strong ticket: only the mask is learned",
            paper=None,
            bars={"quick": at_most(0), "full": at_most(0)},
            unit="weights and bits that differ after saving and loading",
            scaled=_DIGITS,
        ),
        Claim(
            id="mnist-accuracy",
            text="The authors' network keeps its 97.19 per cent on MNIST.",
            where=_EXPERIMENT_1 + ": 97.19 and 97.19 per cent",
            paper=0.0,
            bars={"quick": at_most(1), "full": at_most(1)},
            unit="of 10,000 test pictures between the two accuracies",
            scaled=_AUTHORS,
            sham=True,
            data_sha256=_MNIST,
        ),
        Claim(
            id="mnist-predictions",
            text="Its ticket predicts the same as it does for every picture.",
            where="Not reported; the same table",
            paper=None,
            bars={"quick": at_least(1.0), "full": at_least(1.0)},
            unit="share of equal predictions on 10,000 test pictures",
            scaled=_AUTHORS,
            sham=True,
            data_sha256=_MNIST,
        ),
        Claim(
            id="mnist-weights",
            text="Each of the 397,000 weights is within 0.01.",
            where=_EXPERIMENT_1 + ": all weights within 0.01",
            paper=0.01,
            bars={"quick": at_most(0.01), "full": at_most(0.01)},
            unit="largest error of a weight",
            scaled=_AUTHORS,
            sham=True,
            data_sha256=_MNIST,
        ),
    ),
    api=(
        "mmxx.sparsity.strong_tickets:StrongTicket",
        "mmxx.sparsity.strong_tickets:GoldenTicket",
        "mmxx.sparsity.strong_tickets:RandomNet",
        "mmxx.sparsity.strong_tickets:Certificate",
        "mmxx.sparsity.strong_tickets:subset_sum",
        "mmxx.sparsity.strong_tickets:golden_decomposition",
        "mmxx.sparsity.strong_tickets:brute_force",
        "mmxx.sparsity.strong_tickets:covering_counts",
    ),
    experiment="mmxx.sparsity.strong_tickets.experiment:run",
    extra="torch",
    departs=(
        "The second experiment, edge-popup on redundant against wide networks, has no bar: the "
        "full tier shows it as it comes out, on digits.",
        "Subsets are found by meeting in the middle, exactly or to a tolerance, not by an integer "
        "programme. The search for a weight goes on until its error is a thousandth of "
        "$\\epsilon$: at $\\epsilon$ itself the errors add up, and networks lose their accuracy.",
        "The second random layer is uniform on plus and minus twice the layer's largest weight, "
        "the first on (-1, 1): the theorem has both on (-1, 1) and weights within (-1, 1).",
        "A weight that no subset comes near gets four more coefficients at a time, and is counted.",
        "Biases are weights from a constant input; convolutions have one random 1 × 1 layer and "
        "one of the kernel's size. Both go beyond the papers.",
        "Hyperbolic weights come from octaves, the first layer's from $[2^{-L}, 1)$ and the "
        "second's from $[2^{-L}, 2^L)$, so that their product hits every golden bin equally often; "
        "each weight takes the first product in each bin, where Orseau et al. share draws in "
        "batches.",
    ),
    scale=frozenset({"map"}),
)
