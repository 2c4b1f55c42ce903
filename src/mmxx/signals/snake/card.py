"""What Snake is and what its paper claims."""

from mmxx.lab.catalog import Card, Claim, Paper, at_least, at_most

_SINE = (
    "Six periods of a sine with noise of deviation 0.1 in training and six after them to predict, "
    "120 points and 1,000 steps of Adam for every arm instead of 15,000 of gradient descent; two "
    "hidden layers of 64 units instead of one of 512; a is chosen on the data, not given. "
    "Median of three seeds, five at full scale."
)
_MARKET = (
    "The authors' own series and recipe: a = 30, three hidden layers of 64 units, 600 steps of "
    "gradient descent. Mean of three seeds, five at full scale."
)
_MARKET_SHA256 = "b290dbd99154196fbdd42cf0ee621463c3fffef422c7857881b7192eb8db3b55"

CARD = Card(
    name="snake",
    title="Snake",
    paper=Paper(
        title="Neural Networks Fail to Learn Periodic Functions and How to Fix It",
        authors=("Liu Ziyin", "Tilman Hartwig", "Masahito Ueda"),
        venue="NeurIPS",
        year=2020,
        url="https://arxiv.org/abs/2006.08195",
        arxiv="2006.08195",
    ),
    summary=(
        "The activation $x + \\sin^2(ax)/a$, with which a network goes on with a cycle beyond its "
        "data where ReLU goes on straight and tanh stands still. For series with seasons, and, "
        "channel by channel, for networks that make sound."
    ),
    claims=(
        Claim(
            id="extrapolates-sine",
            text=(
                "A network of Snake that has seen six periods of a noisy sine predicts the six "
                "after them."
            ),
            where="the figures on extrapolating a sine",
            paper=None,
            bars={"quick": at_most(0.2), "full": at_most(0.2)},
            unit="mean squared error (the sine's variance is 0.5)",
            scaled=_SINE,
            sham=True,
        ),
        Claim(
            id="beats-relu-on-sine",
            text="Beyond its data it has a fraction of the error of the same network with ReLU.",
            where="the figures on extrapolating a sine",
            paper=None,
            bars={"quick": at_most(0.2), "full": at_most(0.2)},
            unit="× ReLU's error",
            scaled=_SINE,
            sham=True,
        ),
        Claim(
            id="beats-relu-on-co2",
            text=(
                "On a real series with trend and season, carbon dioxide at Mauna Loa, it predicts "
                "the last quarter better than ReLU."
            ),
            where="the applications; the paper has no such series, but temperatures",
            paper=None,
            bars={"full": at_most(0.99)},
            unit="× ReLU's error",
            scaled=(
                "526 monthly means, the last quarter held out; Adam, 1,500 steps for every arm. "
                "Median of five seeds."
            ),
            sham=True,
        ),
        Claim(
            id="market",
            text="It predicts the Wilshire 5000 index through the crash of 2020.",
            where="the table on the Wilshire 5000 index",
            paper=0.0089,
            bars={"quick": at_most(0.0092), "full": at_most(0.0092)},
            unit="mean squared error of the scaled index",
            scaled=_MARKET,
            sham=True,
            data_sha256=_MARKET_SHA256,
        ),
        Claim(
            id="market-beats-networks",
            text="There, its error is below that of every other activation.",
            where="the table on the Wilshire 5000 index",
            paper=None,
            bars={"quick": at_least(0.0001), "full": at_least(0.0001)},
            unit="below the best other network's mean squared error",
            scaled=_MARKET,
            sham=True,
            data_sha256=_MARKET_SHA256,
        ),
    ),
    api=(
        "mmxx.signals.snake:snake",
        "mmxx.signals.snake:Snake",
        "mmxx.signals.snake:SnakeBeta",
        "mmxx.signals.snake:convert",
        "mmxx.signals.snake:snake_init_",
        "mmxx.signals.snake:snake_variance",
        "mmxx.signals.snake:SnakeRegressor",
        "mmxx.signals.snake:Networks",
        "mmxx.signals.snake:candidate_periods",
        "mmxx.signals.snake:periodogram",
        "mmxx.signals.snake:harmonic_regression",
        "mmxx.signals.snake:seasonal_naive",
        "mmxx.signals.snake:polynomial",
        "mmxx.signals.snake:last_value",
        "mmxx.signals.snake:arima",
        "mmxx.signals.snake:fourier_network",
        "mmxx.signals.snake:asymptote",
    ),
    experiment="mmxx.signals.snake.experiment:run",
    extra="torch",
    departs=(
        "The paper gives a by hand. The regressor and the experiment take it from the three "
        "strongest cycles of a periodogram, decided on the last quarter of the training data: the "
        "first of them whose error there is within one standard error of the least.",
        "Half of the first layer's units begin at exactly that cycle's frequency. The error's "
        "minimum about it is narrower than the gaps between random weights, and without this the "
        "networks learn the yearly cycle of carbon dioxide slowly or not at all.",
        "For each cycle two networks compete in that validation: one with the same a in all "
        "layers, as in the paper, and one with 0.2 in the deeper layers.",
        "A straight line is fitted first, and the networks of all arms learn what it leaves; Adam "
        "with a cosine schedule instead of gradient descent. The market series is exempt from all "
        "of this: there every arm follows the authors' recipe.",
        "The authors' notebooks create a learnable a after the optimizer, so that it is never "
        "trained. Here it is trained, except on the market series, where the recipe fixes it.",
        "snake_init_ divides by the standard deviation of the activation, as the paper says; the "
        "experiment begins with torch's own weights, as the authors' code does.",
    ),
    scale=frozenset({"map"}),
)
