"""What AI Feynman 2.0 is and what its paper claims."""

from mmxx.lab.catalog import Card, Claim, Paper, at_least, at_most

_TABLE = (
    "12 of the 100 equations, 1,000 rows, 6 million formulas each and no network; at full scale "
    "40 equations and 12 million formulas. The paper has 100 equations, up to a million rows and "
    "hours for each."
)
_NOISE = (
    "Gaussian noise of 0.01 on y in units of its root mean square, the same 12 equations; at full "
    "scale 40 equations and noise of 0.0001 to 0.1."
)

CARD = Card(
    name="feynman",
    title="AI Feynman 2.0",
    paper=Paper(
        title=("AI Feynman 2.0: Pareto-optimal symbolic regression exploiting graph modularity"),
        authors=(
            "Silviu-Marian Udrescu",
            "Andrew Tan",
            "Jiahai Feng",
            "Orisvaldo Neto",
            "Tailin Wu",
            "Max Tegmark",
        ),
        venue="NeurIPS",
        year=2020,
        url="https://arxiv.org/abs/2006.10782",
        arxiv="2006.10782",
    ),
    summary=(
        "From a table to formulas: the frontier of those of which no other is both shorter and "
        "more accurate, in bits. Units leave fewer variables, brute force tries millions of "
        "formulas a second and rejects most after 16 rows, and the gradients of a network show "
        "what a function is made of."
    ),
    claims=(
        Claim(
            id="recovers",
            text="It finds the formula behind clean data whose units are known.",
            where="Abstract of the first version (2020): all 100 equations",
            paper=100.0,
            bars={"quick": at_least(83.3), "full": at_least(70)},
            unit="per cent of the equations",
            scaled=_TABLE,
            sham=True,
        ),
        Claim(
            id="units-help",
            text="Units and smaller fits find more than brute force does alone.",
            where="The first version: dimensional analysis comes before all else",
            paper=None,
            bars={"quick": at_least(4), "full": at_least(1)},
            unit="equations more, of 12 (quick: than brute force) or 40 (full: than without units)",
            scaled=_TABLE,
            sham=True,
        ),
        Claim(
            id="polynomial-fails",
            text="A polynomial of degree 4 does not find them: the equations are no easy prey.",
            where="Ours: the control",
            paper=None,
            bars={"quick": at_most(2), "full": at_most(8)},
            unit="equations, of 12 or 40",
            scaled=_TABLE,
        ),
        Claim(
            id="noise",
            text="It finds the formula in noise of one per cent.",
            where="Abstract: robust to noise by orders of magnitude more than the first version",
            paper=None,
            bars={"quick": at_least(58.3), "full": at_least(50)},
            unit="per cent of the equations",
            scaled=_NOISE,
            sham=True,
        ),
        Claim(
            id="noise-rule",
            text="By mean bits and a frontier it finds twice as many as by the largest error.",
            where="Abstract; the first version took the formula of least largest error",
            paper=None,
            bars={"quick": at_most(0.5), "full": at_most(0.5)},
            unit="of the equations found by mean bits, by the rule of the first version",
            scaled=_NOISE,
            sham=True,
        ),
        Claim(
            id="noise-level",
            text="It tolerates ten times the noise that the first version's rule does.",
            where="Abstract: more robust by orders of magnitude",
            paper=None,
            bars={"full": at_least(10)},
            unit="× the noise, medians over the equations found in clean data",
            scaled=_NOISE,
            sham=True,
        ),
        Claim(
            id="modularity",
            text="A network's gradients show which variables count only by one function of them.",
            where="Section 2.3: generalised symmetry",
            paper=None,
            bars={"quick": at_least(1), "full": at_least(1)},
            unit="share of the networks that show the right pair",
            scaled=(
                "$z\\sqrt{x^2+y^2}$, 2,000 rows, one network, at full scale three; one function "
                "whose modules are known."
            ),
        ),
    ),
    api=(
        "mmxx.discovery.feynman:AIFeynmanRegressor",
        "mmxx.discovery.feynman:Expr",
        "mmxx.discovery.feynman:brute_force",
        "mmxx.discovery.feynman:dimensional_reduce",
        "mmxx.discovery.feynman:parse_unit",
        "mmxx.discovery.feynman:separability",
        "mmxx.discovery.feynman:symmetries",
        "mmxx.discovery.feynman:generalized_symmetries",
        "mmxx.discovery.feynman:generalized_additivity",
        "mmxx.discovery.feynman:additive",
        "mmxx.discovery.feynman:compositionality",
        "mmxx.discovery.feynman:fit_tanh",
        "mmxx.discovery.feynman:tanh_network",
        "mmxx.discovery.feynman:train",
        "mmxx.discovery.feynman:fit_density",
        "mmxx.discovery.feynman:snap",
        "mmxx.discovery.feynman:refine",
        "mmxx.discovery.feynman:mdl",
        "mmxx.discovery.feynman:pareto",
        "mmxx.discovery.feynman:Pareto",
        "mmxx.discovery.feynman:feynman_equations",
        "mmxx.discovery.feynman:make",
    ),
    experiment="mmxx.discovery.feynman.experiment:run",
    extra="symbolic",
    departs=(
        "Errors are measured in units of y's root mean square, so that its scale does not matter.",
        "The hypothesis test looks at 16, 64, 256, … rows instead of after 2, 3, 5, …, at rows "
        "spread evenly over y, and rejects at $\\nu = 0.5$ instead of 10: with 10 and a poor best "
        "formula it rejects nothing. The row that the fitted constant passes through is not "
        "counted.",
        "Polynomials come with significant terms only and are not rounded; products of powers are "
        "fitted, too, by the logarithms, and polynomials of the variables' reciprocals.",
        "Numbers are refined by Levenberg and Marquardt, and written as the shortest fraction "
        "that the data cannot tell from them.",
        "A module is taken only where its error is a few times the network's, and the best two are "
        "tried; the authors' program always takes one.",
        "The network is n-16-16-1, fitted by Levenberg and Marquardt, which errs less on 1,000 "
        "rows than the authors' of 30,000 weights, fitted by Adam to up to a million.",
        "The halves of a generalised sum or product are found among formulas of five symbols at "
        "most and their logarithms.",
        "Densities are learnt by an autoregressive flow of logistic mixtures.",
        "Within the budget here a formula of more than seven symbols is rarely reached: all 100 "
        "equations would take hours for each.",
    ),
    scale=frozenset({"map"}),
)
