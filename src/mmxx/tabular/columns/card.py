"""What choosing columns by volume is and what its paper claims."""

from mmxx.lab.catalog import Card, Claim, Paper, at_least, at_most

_SPECTRA = (
    "The paper's artificial spectra themselves: 50 eigenvalues for κ = 10, 5 and 1, and 200 on "
    "three levels."
)
_TABLES = (
    "Kernels over the rows of tables that ship with scikit-learn and statsmodels; the paper takes "
    "bodyfat and eunite2001 of the Libsvm collection, which do not."
)
_CANCER = "The kernel of 569 rows, σ the median distance, k = 20; 100 draws, at full scale 1,000."

CARD = Card(
    name="columns",
    title="Column subsets and the Nyström method",
    paper=Paper(
        title=(
            "Improved guarantees and a multiple-descent curve for Column Subset Selection and the "
            "Nyström method"
        ),
        authors=("Michał Dereziński", "Rajiv Khanna", "Michael W. Mahoney"),
        venue="NeurIPS",
        year=2020,
        url="https://arxiv.org/abs/2002.09073",
        arxiv="2002.09073",
    ),
    summary=(
        "Choose the columns of a table, or the landmarks of a kernel, that say most about all "
        "others: by volume sampling and eleven other ways. How far from optimal a choice of k "
        "columns is follows from the eigenvalues, and so do the sizes k to avoid: the error over "
        "the optimum rises and falls again wherever the spectrum drops."
    ),
    claims=(
        Claim(
            id="peaks",
            text=(
                "The factor over the optimum peaks where the spectrum drops, once for each drop, "
                "and nowhere in a flat spectrum."
            ),
            where="Figures 1 and 2: the multiple-descent curve",
            paper=None,
            bars={"quick": at_most(0), "full": at_most(0)},
            unit="peaks that are missing, or stand elsewhere than at 20 and 40",
            scaled=_SPECTRA,
        ),
        Claim(
            id="peak-heights",
            text="These peaks are 7.607 (κ = 10), 4.115 (κ = 5), 20.571 and 35.579 (three levels).",
            where="The formula of Sec. 2 for the spectra of the figures, which give no digits",
            paper=None,
            bars={"quick": at_most(0.002), "full": at_most(0.002)},
            unit="largest difference from these",
            scaled=_SPECTRA,
        ),
        Claim(
            id="closed-form",
            text="The mean error of volume sampling is $(k+1)\\,e_{k+1}/e_k$ of the eigenvalues.",
            where="Sec. 2, the expectation formula",
            paper=None,
            bars={"quick": at_most(4), "full": at_most(4)},
            unit="standard errors between formula and mean, the most of all k and spectra",
            scaled="1,000 draws at k = 5, 20, 30, at full scale 10,000, of κ = 10 and 3 levels.",
            sham=True,
        ),
        Claim(
            id="bound",
            text="No factor is above $k + 1$ or the bound's leading term $\\Phi_s(k)$.",
            where="Theorem 1, without its factor $(1 + 2\\epsilon)^2$",
            paper=None,
            bars={"quick": at_least(1), "full": at_least(1)},
            unit="× the factor, the least of all k",
            scaled="The artificial spectra and the tables' kernels, k up to 40.",
        ),
        Claim(
            id="lower-bound",
            text="On some matrices no subset of any algorithm escapes several peaks.",
            where="The lower bound of Sec. 3: $(1 - \\delta)(k_i - k_{i-1})$",
            paper=None,
            bars={"quick": at_least(0.95), "full": at_least(0.95)},
            unit="× $k_i - k_{i-1}$: the best of all subsets, at the peak where it is least",
            scaled="Peaks at (4, 9) and (3, 6, 10): all subsets of 10 and 11 columns.",
        ),
        Claim(
            id="real-peaks",
            text="Wide kernels over real tables peak too: diabetes at k = 9, anes96 at k = 8.",
            where="Figure 3, on other tables",
            paper=None,
            bars={"quick": at_least(1.4), "full": at_least(1.4)},
            unit="× the factor at k = 14, the lesser of both; 1 without that peak",
            scaled=_TABLES,
        ),
        Claim(
            id="narrow-control",
            text="Narrow kernels over the same tables have no peak.",
            where="Figure 3, on other tables",
            paper=None,
            bars={"quick": at_most(0), "full": at_most(0)},
            unit="peaks that stand out by 1.15 or more",
            scaled=_TABLES,
        ),
        Claim(
            id="beats-uniform",
            text="Uniform sampling leaves several times the error of volume sampling.",
            where="The introduction: why subsets are not drawn uniformly",
            paper=None,
            bars={"quick": at_least(3), "full": at_least(3)},
            unit="× the k-DPP's mean error on breast_cancer",
            scaled=_CANCER,
            sham=True,
        ),
        Claim(
            id="as-predicted",
            text="Volume sampling has the error on real data that the eigenvalues foretell.",
            where="Sec. 2, the expectation formula",
            paper=None,
            bars={"quick": at_most(1.15), "full": at_most(1.15)},
            unit="× the formula, mean error on breast_cancer",
            scaled=_CANCER,
            sham=True,
        ),
        Claim(
            id="random-size",
            text="A DPP of L/α has the expected error α times its expected size.",
            where="The lemma behind Theorem 1",
            paper=None,
            bars={"quick": at_most(4), "full": at_most(4)},
            unit="standard errors between the two, the most of the α",
            scaled="1,000 draws at three α, at full scale 10,000, of the spectrum for κ = 10.",
        ),
        Claim(
            id="convex",
            text="The expected error is convex in k.",
            where="Conjecture 1",
            paper=None,
            bars={"quick": at_most(0), "full": at_most(0)},
            unit="sizes k at which it is not",
            scaled="The artificial spectra and the tables' kernels.",
        ),
    ),
    api=(
        "mmxx.tabular.columns:ColumnSubsetSelector",
        "mmxx.tabular.columns:DPPNystroem",
        "mmxx.tabular.columns:KernelMatrix",
        "mmxx.tabular.columns:SampleInfo",
        "mmxx.tabular.columns:sample_kdpp",
        "mmxx.tabular.columns:sample_dpp",
        "mmxx.tabular.columns:nystroem_error",
        "mmxx.tabular.columns:spectrum",
    ),
    experiment="mmxx.tabular.columns.experiment:run",
    extra="tabular",
    departs=(
        "The paper's tables, bodyfat and eunite2001, do not ship with any package: others stand "
        "in. `--data file.svm` reads the originals.",
        "Subsets are drawn from ratios of elementary symmetric polynomials, which neither "
        "overflow nor cancel, and rows by leverage with rejection: $O(nk + k^3 \\log k)$ a draw, "
        "with the same law.",
        "The construction of the lower bound is ours: simplices, each squeezed along its height.",
        "The theorem holds with a factor $(1 + 2\\epsilon)^2$ and for some k only; what is drawn "
        "and judged is its leading term, as in the paper's figures.",
        "Factors are shown only where the optimum is above $10^{-10}$ of the trace; below, "
        "rounding makes peaks.",
    ),
    scale=frozenset({"map"}),
)
