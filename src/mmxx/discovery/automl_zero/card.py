"""What AutoML-Zero is and what its paper claims."""

from mmxx.lab.catalog import Card, Claim, Paper, at_least

_FIXED = (
    "In quick, the easier space in which each component has only the operations it needs, one "
    "seed, 30 restarts of 10 million training examples at most, and as many for random search and "
    "for evolution without selection. At full scale the authors' demonstration, 8 seeds, 16 "
    "restarts of 100 million; the paper runs up to 10,000 processes for days."
)

CARD = Card(
    name="automl_zero",
    title="AutoML-Zero",
    paper=Paper(
        title="AutoML-Zero: Evolving Machine Learning Algorithms From Scratch",
        authors=("Esteban Real", "Chen Liang", "David R. So", "Quoc V. Le"),
        venue="ICML",
        year=2020,
        url="https://arxiv.org/abs/2003.03384",
        arxiv="2003.03384",
    ),
    summary=(
        "Learning algorithms as short programs over scalars, vectors and matrices, made of basic "
        "mathematics alone, that evolve from random or empty ones: mutated, judged by what they "
        "learn, the oldest dying. A compiled interpreter runs one program on many tasks in step."
    ),
    claims=(
        Claim(
            id="discovers",
            text=(
                "From random programs evolution finds one that learns linear regression by "
                "gradient descent: fitness above 0.9999 on 100 tasks of selection, and above "
                "0.999 on 100 that nothing was chosen by."
            ),
            where="section 4.1, on linear tasks; the authors' demonstration",
            paper=None,
            bars={"quick": at_least(1.0), "full": at_least(0.8)},
            unit="share of the seeds",
            scaled=_FIXED,
            sham=True,
        ),
        Claim(
            id="needs-selection",
            text=(
                "At equal or more training examples neither random search nor evolution without "
                "selection finds it."
            ),
            where="section 4.1, figure 4: evolution against random search",
            paper=None,
            bars={"quick": at_least(1.0), "full": at_least(0.25)},
            unit="share of the seeds with success, less the better of the two others' share",
            scaled=(
                "The easier space; one seed, 30 restarts of 10 million; at full scale 20 seeds, 10 "
                "restarts of 10 million."
            ),
            sham=True,
        ),
        Claim(
            id="five-times",
            text="It succeeds at least five times as often as random search.",
            where="section 4.1, figure 4: success relative to random search, on linear tasks",
            paper=None,
            bars={"full": at_least(5.0)},
            unit="× random search's successes, none counting as one",
            scaled="The easier space, 20 seeds, 10 restarts of 10 million training examples each.",
            sham=True,
        ),
        Claim(
            id="repairs",
            text=(
                "A network of two layers whose initialisation was taken out is repaired: its "
                "fitness comes within 5 per cent of the whole network's."
            ),
            where="the authors' integration test",
            paper=None,
            bars={"full": at_least(0.5)},
            unit="share of the seeds",
            scaled="4 seeds of 100 million training examples, as many as in the authors' test.",
            sham=True,
        ),
        Claim(
            id="improves-on-digits",
            text=(
                "Evolved from the network of two layers on projected pairs of digits, an algorithm "
                "is more accurate than it on pairs that were held out."
            ),
            where="section 4.2, projected binary CIFAR-10",
            paper=None,
            bars={"full": at_least(0.5)},
            unit="points of mean accuracy above the network's",
            scaled=(
                "8 × 8 digits instead of CIFAR-10, one run of 150 million training examples; 9 "
                "pairs held out, 10 projections of each."
            ),
            sham=True,
        ),
    ),
    api=(
        "mmxx.discovery.automl_zero:Program",
        "mmxx.discovery.automl_zero:Instruction",
        "mmxx.discovery.automl_zero:OPS",
        "mmxx.discovery.automl_zero:SearchSpace",
        "mmxx.discovery.automl_zero:Task",
        "mmxx.discovery.automl_zero:RegularizedEvolution",
        "mmxx.discovery.automl_zero:RandomSearch",
        "mmxx.discovery.automl_zero:FEC",
        "mmxx.discovery.automl_zero:Hurdle",
        "mmxx.discovery.automl_zero:evaluate",
        "mmxx.discovery.automl_zero:linear_regression_tasks",
        "mmxx.discovery.automl_zero:affine_tasks",
        "mmxx.discovery.automl_zero:nn_teacher_tasks",
        "mmxx.discovery.automl_zero:projected_binary_tasks",
        "mmxx.discovery.automl_zero:AutoMLZeroClassifier",
        "mmxx.discovery.automl_zero:AutoMLZeroRegressor",
        "mmxx.discovery.automl_zero:evolve_islands",
    ),
    experiment="mmxx.discovery.automl_zero.experiment:run",
    extra="symbolic",
    departs=(
        "A program's draws are a hash of seed, task, instruction and time, so that fitness does "
        "not depend on the order of evaluation; the authors draw from one running generator.",
        "Instructions that cannot reach a prediction are left out before a program runs, and do "
        "not count towards its cost.",
        "The equivalence cache holds one entry for a program's behaviour on all tasks, not one for "
        "each task, and drops the longest unused of a bucket of eight, or where asked of all.",
        "Ten tasks of digits are judged by the mean of their fitness, as in the authors' code; of "
        "tasks with few errors the median hardly tells programs apart.",
        "minimum and maximum hand on NaN, as in numpy.",
        "Success is judged on tasks of 1,000 training examples; the search sees 100.",
        "In the easier space the population is 300, tournaments are of 3, components are not "
        "randomised as a whole, and the cache's probe takes 5 and 5 examples. The probe was "
        "chosen on seeds that include the default one, so that its success there is no surprise. "
        "The demonstration has the authors' settings.",
    ),
    scale=frozenset({"map"}),
)
