"""What causal mediation analysis is and what its paper claims."""

from mmxx.lab.catalog import Card, Claim, Paper, at_least, at_most, between

_PLANTED = (
    "A GPT of 2 layers, 4 heads each, width 64, trained here on sentences with a planted bias; the "
    "paper takes GPT-2 of 82 to 1,558 million parameters as they are. 24 professions; one "
    "seed, at full scale three."
)
_PAIRS = _PLANTED.replace("24 professions", "150 pairs of sentences")
_WHERE = "the results on attention heads: few of them hold the effect"

CARD = Card(
    name="mediation",
    title="Causal mediation analysis",
    paper=Paper(
        title="Investigating Gender Bias in Language Models Using Causal Mediation Analysis",
        authors=(
            "Jesse Vig",
            "Sebastian Gehrmann",
            "Yonatan Belinkov",
            "Sharon Qian",
            "Daniel Nevo",
            "Yaron Singer",
            "Stuart Shieber",
        ),
        venue="NeurIPS",
        year=2020,
        url="https://arxiv.org/abs/2004.12265",
        arxiv="2004.12265",
    ),
    summary=(
        "Through which heads and neurons of a language model does a changed word act? Total, "
        "direct and indirect effects on odds, $TE = y_x/y_0 - 1$, for any causal model of "
        "transformers, with all mediators in one growing batch; sets, greedy selection, and a "
        "planted bias whose effect is known."
    ),
    claims=(
        Claim(
            id="bias-is-found",
            text=(
                'The total effect of replacing a profession by "woman" falls with the bias of the '
                "profession towards women."
            ),
            where="the results on total effects, by profession",
            paper=None,
            bars={"quick": at_most(-0.97), "full": at_most(-0.97)},
            unit="correlation of log(1 + TE) with the planted log odds",
            scaled=_PLANTED,
            sham=True,
        ),
        Claim(
            id="control-total",
            text="Where no bias was planted, swapping the pronoun has no effect on the whole.",
            where="the results on total effects: models with random weights as a baseline",
            paper=None,
            bars={"quick": at_most(0.06), "full": at_most(0.06)},
            unit="|mean log(1 + TE)|",
            scaled=_PAIRS,
        ),
        Claim(
            id="control-indirect",
            text="Nor do the heads mediate anything there.",
            where="the results on total effects: models with random weights as a baseline",
            paper=None,
            bars={"quick": at_most(0.02), "full": at_most(0.02)},
            unit="|mean log(1 + NIE)| of all heads",
            scaled=_PAIRS,
        ),
        Claim(
            id="additive",
            text="Direct and indirect effects add up, in logarithms, to the total, pair by pair.",
            where="the decomposition of the total effect, from the authors' results",
            paper=0.973,
            bars={"quick": at_least(0.95), "full": at_least(0.95)},
            unit="correlation of log(1 + TE) with log(1 + NIE) + log(1 + NDE)",
            scaled=_PAIRS + " The paper's figure is that of the plain ratios, GPT-2 small.",
        ),
        Claim(
            id="few-heads",
            text="Three heads of eight hold most of the indirect effect.",
            where=_WHERE,
            paper=None,
            bars={"quick": at_least(0.75), "full": at_least(0.75)},
            unit="of the NIE of all heads, log units",
            scaled=_PAIRS,
            sham=True,
        ),
        Claim(
            id="few-heads-margin",
            text="Three heads at random hold much less.",
            where=_WHERE,
            paper=None,
            bars={"quick": at_least(0.3), "full": at_least(0.3)},
            unit="of the NIE of all heads, above three random heads",
            scaled=_PAIRS,
            sham=True,
        ),
        Claim(
            id="closed-form",
            text="Pair by pair, the total effect is that which the planted bias implies.",
            where="ours: the paper's models have no known effect",
            paper=None,
            bars={"quick": at_least(0.9), "full": at_least(0.9)},
            unit="correlation of log(1 + TE) with its closed form",
            scaled=_PAIRS,
        ),
        Claim(
            id="closed-form-slope",
            text="And of its size.",
            where="ours: the paper's models have no known effect",
            paper=None,
            bars={"quick": between(0.85, 1.1), "full": between(0.85, 1.1)},
            unit="slope of log(1 + TE) over its closed form",
            scaled=_PAIRS,
        ),
        Claim(
            id="known-networks",
            text=(
                "On networks set by hand it finds the known effects: of heads, of heads that act "
                "only together, and none where attention changes for nothing."
            ),
            where="the definitions of the three effects",
            paper=None,
            bars={"quick": at_most(1e-10), "full": at_most(1e-10)},
            unit="largest error of a log effect",
        ),
    ),
    api=(
        "mmxx.language.mediation:Mediation",
        "mmxx.language.mediation:Example",
        "mmxx.language.mediation:Effects",
        "mmxx.language.mediation:Selection",
        "mmxx.language.mediation:DecoderParts",
        "mmxx.language.mediation:decoder_parts",
        "mmxx.language.mediation:total_effect",
        "mmxx.language.mediation:decompose",
        "mmxx.language.mediation:load_professions",
        "mmxx.language.mediation:load_winobias",
        "mmxx.language.mediation:load_winogender",
        "mmxx.language.mediation:load_examples",
    ),
    experiment="mmxx.language.mediation.experiment:run",
    extra="language",
    departs=(
        "No weights are downloaded. The experiment plants a bias in sentences of its own and "
        "trains a small GPT on them, so that the total effect is known; the user's own models are "
        "analysed with --model.",
        "The anti-stereotypical gender of a profession follows from its crowd scores, as the paper "
        "says; the authors' code asks the model's own preference: direction=\"model\".",
        "Words that are male or female by definition are left out where |score| ≥ 0.75; the "
        "authors' aggregation keeps them where its comment says that it does not.",
        "Words of several tokens are named and left out; the authors' code drops them silently.",
        "Effects are kept as logarithms, and geometric mean and median are reported beside the "
        "paper's mean of ratios, which one profession can dominate.",
        "Everything before the first changed token, and the blocks before a head, are computed "
        "once for all mediators. The paper's way, one pass for each, is exact=False.",
    ),
    scale=frozenset({"map"}),
)
