"""What SnapBoost is and what its paper claims."""

from mmxx.lab.catalog import Card, Claim, Paper, at_least, at_most

_TABLES = "the tables of test losses beside XGBoost and LightGBM on OpenML tables"
_SEARCH = (
    "Small tables that ship inside scikit-learn and statsmodels, {splits}, 30 random settings for "
    "every arm on each, chosen by validation, at most 200 rounds; the arms are our own trees of "
    "one depth and of random depth. Ratio of mean test losses."
)
_QUICK = _SEARCH.format(splits="six splits (four for random depth; at full scale four)")
_ALL = _SEARCH.format(splits="four splits (three and 20 settings for randhie, fair and digits)")

CARD = Card(
    name="snapboost",
    title="SnapBoost",
    paper=Paper(
        title="SnapBoost: A Heterogeneous Boosting Machine",
        authors=(
            "Thomas Parnell",
            "Andreea Anghel",
            "Małgorzata Łazuka",
            "Nikolas Ioannou",
            "Sebastian Kurella",
            "Peshal Agarwal",
            "Nikolaos Papandreou",
            "Haralampos Pozidis",
        ),
        venue="NeurIPS",
        year=2020,
        url="https://arxiv.org/abs/2006.09745",
        arxiv="2006.09745",
    ),
    summary=(
        "Gradient boosting whose rounds draw what they will be: a regression tree of random depth, "
        "or a ridge regression on random Fourier features. For tables whose target is smooth in "
        "some columns and jumps in others. Estimators for regression and classification with "
        "missing values, categories and safe model files; a general machine for any regressors."
    ),
    claims=(
        Claim(
            id="diabetes",
            text="Mixing trees and ridges predicts diabetes better than trees alone.",
            where=_TABLES,
            paper=None,
            bars={"quick": at_most(0.95), "full": at_most(0.95)},
            unit="× the test loss of trees of one depth or of random depth, the larger ratio",
            scaled=_QUICK,
            sham=True,
        ),
        Claim(
            id="star98",
            text="So it does the test scores of Californian schools.",
            where=_TABLES,
            paper=None,
            bars={"quick": at_most(0.95), "full": at_most(0.95)},
            unit="× the test loss of trees of one depth or of random depth, the larger ratio",
            scaled=_QUICK,
            sham=True,
        ),
        Claim(
            id="smooth-and-steps",
            text=(
                "On a target with a smooth part and a part in steps, the mixture beats trees of "
                "one depth."
            ),
            where="Ours: the mechanism's own test; section 4 gives the reason",
            paper=None,
            bars={"quick": at_most(0.95), "full": at_most(0.9)},
            unit="× the test loss of trees of one depth",
            scaled=(
                "A made-up table of 1,500 rows and ten columns, 12 settings, one split; at full "
                "scale 4,000 rows, 30 settings, two tables."
            ),
            sham=True,
        ),
        Claim(
            id="control",
            text="Ridges that learn from the features of other rows do not help.",
            where="Ours",
            paper=None,
            bars={"quick": at_least(0.98), "full": at_least(0.98)},
            unit="× the test loss of trees of random depth, geometric mean over the tables",
            scaled=_QUICK,
        ),
        Claim(
            id="eight-tables",
            text="Over eight tables, the mixture has the smaller test loss.",
            where=_TABLES,
            paper=None,
            bars={"full": at_most(0.985)},
            unit="× the test loss of trees of one depth, geometric mean",
            scaled=_ALL,
            sham=True,
        ),
        Claim(
            id="nine-tables",
            text="Nor is it worse with a ninth, whether a digit is odd.",
            where=_TABLES,
            paper=None,
            bars={"full": at_most(1.0)},
            unit="× the test loss of trees of one depth, geometric mean",
            scaled=_ALL,
        ),
        Claim(
            id="worst-table",
            text="On no table does it lose by more than 5 per cent, on digits by 15.",
            where=_TABLES,
            paper=None,
            bars={"full": at_most(1.05)},
            unit="× the test loss of trees of one depth, worst table (digits: times 1.05 / 1.15)",
            scaled=_ALL,
        ),
        Claim(
            id="diabetes-every-split",
            text="On diabetes it is better on every split.",
            where=_TABLES,
            paper=None,
            bars={"full": at_least(4)},
            unit="of four splits",
            scaled=_ALL,
            sham=True,
        ),
    ),
    api=(
        "mmxx.tabular.snapboost:SnapBoostRegressor",
        "mmxx.tabular.snapboost:SnapBoostClassifier",
        "mmxx.tabular.snapboost:HNBM",
        "mmxx.tabular.snapboost:load_model",
        "mmxx.tabular.snapboost:sample_space",
        "mmxx.tabular.snapboost:tune",
        "mmxx.tabular.snapboost:Shard",
    ),
    experiment="mmxx.tabular.snapboost.experiment:run",
    extra="tabular",
    departs=(
        "The baseline is our own machine with trees of one depth, so that nothing differs but the "
        "rounds; at full scale scikit-learn's and, where installed, LightGBM's boosting stand "
        "beside it without a bar. The paper compares with XGBoost and LightGBM.",
        "The paper tunes by nested cross-validation with successive halving on OpenML tables; here "
        "it is random search with one validation part, on small tables. `tune` halves as the paper "
        "does, from where the fits stand.",
        "The ridge's penalty is multiplied by the mean curvature by default. An absolute penalty "
        "makes ridge rounds of the log-loss vanish as the model grows certain; for squared error "
        "the two are the same. A ridge whose rows have less curvature than min_child_weight adds "
        "nothing, as a leaf would.",
        "Columns are standardised for the Fourier features, with indicators for missing values and "
        "categories as ones and zeros; the kernel is meaningless on raw columns.",
        "More than two classes have one learner each in a round, of one kind and depth; the paper "
        "treats two classes.",
        "The sum starts at the best constant, the paper's sample code at 0. The intercept of a "
        "ridge is not penalised.",
        "Gradients are rounded to whole units, of which 61 bits hold their sum, and added exactly: "
        "the order of the rows and the number of threads change no bit of a tree.",
    ),
    scale=frozenset({"map"}),
)
