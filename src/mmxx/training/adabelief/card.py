"""What AdaBelief is and what its paper claims."""

from mmxx.lab.catalog import Card, Claim, Paper, at_least, at_most

_TOY = (
    "Start, learning rate 1e-3 and distance 0.05 are ours; the paper shows the walks as pictures."
)
_TEXT = (
    "A character LSTM of 2 × 96 on 465,000 characters, 300 steps at a constant learning rate, 2 "
    "seeds; the paper trains on the Penn Treebank for 200 epochs."
)

CARD = Card(
    name="adabelief",
    title="AdaBelief",
    paper=Paper(
        title="AdaBelief Optimizer: Adapting Stepsizes by the Belief in Observed Gradients",
        authors=(
            "Juntang Zhuang",
            "Tommy Tang",
            "Yifan Ding",
            "Sekhar Tatikonda",
            "Nicha Dvornek",
            "Xenophon Papademetris",
            "James S. Duncan",
        ),
        venue="NeurIPS",
        year=2020,
        url="https://arxiv.org/abs/2010.07468",
        arxiv="2010.07468",
    ),
    summary=(
        "Adam that divides by the spread of the gradient about its mean, $\\sqrt{s_t}$ with "
        "$s_t$ the average of $(g_t - m_t)^2$, so that steady gradients make long steps. A "
        "drop-in torch optimizer, on the CPU in one pass over memory."
    ),
    claims=(
        Claim(
            id="toy-steps",
            text=(
                "On each of six functions of two variables AdaBelief needs at most three "
                "quarters of Adam's steps to the optimum."
            ),
            where="The figure of trajectories on 2-D functions: fastest in all cases",
            paper=None,
            bars={"quick": at_most(0.75), "full": at_most(0.75)},
            unit="× Adam's steps, on the worst of six functions",
            scaled=_TOY,
            sham=True,
        ),
        Claim(
            id="closed-form",
            text=(
                "While the gradient does not change, the step grows as algorithm 2 has it: "
                "$1.11$ lr at first, $66.8$ lr after 3,000 steps."
            ),
            where="Algorithm 2, as the authors' code places $\\epsilon$",
            paper=None,
            bars={"quick": at_most(1e-12), "full": at_most(1e-12)},
            unit="largest relative error over 3,000 steps",
            scaled="Not smaller: an identity.",
        ),
        Claim(
            id="text-every-rate",
            text="A language model learns more with AdaBelief than with Adam at every rate.",
            where=(
                "Authors' logs, LSTM/curve: Penn Treebank test perplexity of 1, 2, 3 layers "
                "84.21, 66.29, 61.24; Adam 84.28, 67.27, 64.28"
            ),
            paper=None,
            bars={"full": at_least(0.01)},
            unit="bits per character below Adam, at the worst learning rate",
            scaled=_TEXT,
            sham=True,
        ),
        Claim(
            id="text-mean-gain",
            text="The gain over Adam on a language model is more than noise.",
            where=(
                "Authors' logs, LSTM/curve: Penn Treebank test perplexity of 2 layers 66.29; "
                "Adam 67.27"
            ),
            paper=None,
            bars={"full": at_least(0.04)},
            unit="bits per character below Adam, mean over learning rates",
            scaled=_TEXT,
            sham=True,
        ),
        Claim(
            id="cnn-gain",
            text="A convolutional network generalises better with AdaBelief than with Adam.",
            where=(
                "Authors' logs, classification_cifar10/curve: ResNet-34 test accuracy 95.44; "
                "Adam 93.02, SGD 94.64"
            ),
            paper=2.42,
            bars={"full": at_least(1.0)},
            unit="points over Adam, each at its best learning rate",
            scaled=(
                "Four convolutions on 16 × 16 patches of 16 photographs, 8 epochs, 2 seeds; the "
                "paper trains a ResNet-34 on CIFAR-10 for 200 epochs, both at 1e-3."
            ),
            sham=True,
        ),
    ),
    api=(
        "mmxx.training.adabelief:AdaBelief",
        "mmxx.training.adabelief:PRESETS",
    ),
    experiment="mmxx.training.adabelief.experiment:run",
    extra="torch",
    departs=(
        "The rule is the authors' code (adabelief-pytorch 0.2.1), which adds $\\epsilon$ inside "
        "the recurrence, where it accumulates, and again beside the root.",
        "With rectify, amsgrad acts; in the authors' package it has no effect then.",
        "Coupled weight decay leaves the gradient as it was; all options are kept per group.",
        "The state of 16-bit parameters is float32.",
        "Each optimizer's best learning rate counts in cnn-gain; the authors' logs have one.",
    ),
    scale=frozenset({"map"}),
)
