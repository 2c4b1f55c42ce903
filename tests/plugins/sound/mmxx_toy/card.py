"""What the toy claims."""

from mmxx.lab.catalog import Card, Claim, Paper, at_least, at_most

CARD = Card(
    name="toy",
    title="Toy line",
    paper=Paper(
        title="Theoria motus",
        authors=("C. F. Gauss",),
        venue="Perthes und Besser",
        year=1809,
        url="https://example.org/gauss",
    ),
    summary="Fits $y = ax + b$ by gradient descent. For tests of the lab.",
    claims=(
        Claim(
            id="finds-slope",
            text="The slope is found.",
            where="Section 3",
            paper=2.0,
            bars={"quick": at_most(0.1), "full": at_most(0.05)},
            unit="error of the slope",
            scaled="40 points",
            sham=True,
        ),
        Claim(
            id="full-only",
            text="With more steps it is found better.",
            where="Section 4",
            paper=None,
            bars={"full": at_least(1.0)},
        ),
        Claim(
            id="beats-mean",
            text="A line is better than a constant.",
            where="Table 1",
            paper=None,
            bars={"quick": at_least(2.0), "full": at_least(2.0)},
            unit="× the constant's error",
            sham=True,
        ),
    ),
    api=("mmxx_toy.line:fit_line",),
    experiment="mmxx_toy.experiment:run",
    departs=("Gauss solved the normal equations.",),
    scale=frozenset({"map"}),
)
