"""What lottery tickets are and what their papers claim."""

from mmxx.lab.catalog import Card, Claim, Paper, at_least

_SCALED = (
    "64-300-100-10 on 1,200 digits of 8 × 8 pixels, tested on 597, 15 epochs of Adam; the paper "
    "trains 784-300-100-10 on 60,000 digits of MNIST for 50,000 steps."
)
_WHERE = "Frankle and Carbin, ICLR 2019, section 2 (LeNet on MNIST), figures 3 and 4"

CARD = Card(
    name="lottery",
    title="Lottery tickets",
    paper=Paper(
        title="Linear Mode Connectivity and the Lottery Ticket Hypothesis",
        authors=(
            "Jonathan Frankle",
            "Gintare Karolina Dziugaite",
            "Daniel M. Roy",
            "Michael Carbin",
        ),
        venue="ICML",
        year=2020,
        url="https://arxiv.org/abs/1912.05671",
        arxiv="1912.05671",
    ),
    summary=(
        "Iterative magnitude pruning with rewinding: train a network, drop its smallest weights, "
        "set the others back to where they began, and train again. What is left, a seventh of the "
        "network, learns as well as the whole; with other initial weights it does not. For any "
        "torch network and training loop, exact, resumable, with all the controls."
    ),
    claims=(
        Claim(
            id="matches-dense",
            text="A ticket of 13.9 % of the weights is as accurate as the whole network.",
            where=_WHERE,
            paper=None,
            bars={"quick": at_least(-1.0), "full": at_least(-1.0)},
            unit="points over the dense network",
            scaled=_SCALED,
            sham=True,
        ),
        Claim(
            id="beats-new-weights",
            text="It is more accurate than the same network with new initial weights.",
            where=_WHERE,
            paper=None,
            bars={"quick": at_least(2.0), "full": at_least(2.0)},
            unit="points over the same mask with new weights, at 13.9 %",
            scaled=_SCALED,
            sham=True,
        ),
        Claim(
            id="learns-faster",
            text="It learns faster than with new initial weights: it is far ahead after 5 epochs.",
            where=_WHERE,
            paper=None,
            bars={"quick": at_least(8.0), "full": at_least(8.0)},
            unit="points over the same mask with new weights, after 5 epochs, at 13.9 %",
            scaled=_SCALED,
            sham=True,
        ),
        Claim(
            id="small-ticket",
            text="The smaller the ticket, the more its initial weights matter: at 3.9 %.",
            where=_WHERE,
            paper=None,
            bars={"full": at_least(3.0)},
            unit="points over the same mask with new weights, at 3.9 %",
            scaled=_SCALED,
            sham=True,
        ),
        Claim(
            id="smallest-ticket",
            text="The smaller the ticket, the more its initial weights matter: at 2.1 %.",
            where=_WHERE,
            paper=None,
            bars={"full": at_least(6.0)},
            unit="points over the same mask with new weights, at 2.1 %",
            scaled=_SCALED,
            sham=True,
        ),
    ),
    api=(
        "mmxx.sparsity.lottery:LotteryTicket",
        "mmxx.sparsity.lottery:LotteryTicketClassifier",
        "mmxx.sparsity.lottery:advance",
        "mmxx.sparsity.lottery:Supervised",
        "mmxx.sparsity.lottery:Replicas",
        "mmxx.sparsity.lottery:Masks",
        "mmxx.sparsity.lottery:prune",
        "mmxx.sparsity.lottery:one_shot",
        "mmxx.sparsity.lottery:snip",
        "mmxx.sparsity.lottery:hold",
        "mmxx.sparsity.lottery:linear_barrier",
        "mmxx.sparsity.lottery:to_sparse",
        "mmxx.sparsity.lottery:compact",
    ),
    experiment="mmxx.sparsity.lottery.experiment:run",
    extra="torch",
    departs=(
        "Exactly round(rate × n) weights of a layer are dropped, or ceil(rate × n) over all "
        "layers, and ties by lower index first. The authors' codes drop one more, and all ties.",
        "A control with new weights trains from step 0, also where tickets are rewound to a later "
        "step: it gets more training, not less.",
        "Three seeds (quick) or five (full) train side by side as one network, each with its own "
        "weights, split into training and test pictures, and order of data.",
    ),
    scale=frozenset({"ddp", "map"}),
)
