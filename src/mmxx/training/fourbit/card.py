"""What four-bit training is and what its paper claims."""

from mmxx.lab.catalog import Card, Claim, Paper, at_least, at_most

_TEXT = (
    "A character transformer of 3 blocks, width 64 and 64 characters on 465,000 characters, Adam "
    "3e-3 with a cosine: 150 steps and one seed, at full scale 500 steps and the mean of two. The "
    "paper trains transformers on WMT and ResNets on ImageNet. Embedding and head stay in FP32."
)

CARD = Card(
    name="fourbit",
    title="Ultra-low precision 4-bit training",
    paper=Paper(
        title="Ultra-Low Precision 4-bit Training of Deep Neural Networks",
        authors=(
            "Xiao Sun",
            "Naigang Wang",
            "Chia-Yu Chen",
            "Jiamin Ni",
            "Ankur Agrawal",
            "Xiaodong Cui",
            "Swagath Venkataramani",
            "Kaoutar El Maghraoui",
            "Vijayalakshmi Srinivasan",
            "Kailash Gopalakrishnan",
        ),
        venue="NeurIPS",
        year=2020,
        url="https://proceedings.neurips.cc/paper/2020/hash/"
        "13b919438259814cd5be8cb45877d577-Abstract.html",
    ),
    summary=(
        "Weights and activations as INT4, gradients as radix-4 FP4 ($0, \\pm 4^k$), so that all "
        "three products of a layer have four-bit operands. One call converts a PyTorch model; "
        "what waits for the backward pass is an eighth as large."
    ),
    claims=(
        Claim(
            id="near-fp32",
            text="A language model trained with four-bit operands comes close to FP32.",
            where=(
                "The results on Transformer-base; as quoted by the LUQ paper (table 2), BLEU 25.4 "
                "against 27.5"
            ),
            paper=None,
            bars={"quick": at_most(3.0), "full": at_most(6.0)},
            unit="% more bits per character than FP32",
            scaled=_TEXT,
            sham=True,
        ),
        Claim(
            id="grad-scale",
            text="Training needs a scale of its own for each layer's gradients (GradScale).",
            where="The section on GradScale, per-layer adaptive loss scaling",
            paper=None,
            bars={"quick": at_least(0.3), "full": at_least(0.4)},
            unit="bits per character below the same with one loss scale of 2¹⁰",
            scaled=_TEXT,
            sham=True,
        ),
        Claim(
            id="two-phases",
            text=(
                "Rounding the gradient in two phases, $4^k$ for one product and $2 \\cdot 4^k$ "
                "for the other, is worth a part of the loss."
            ),
            where="The section on two-phase rounding",
            paper=None,
            bars={"quick": at_least(0.02), "full": at_least(0.05)},
            unit="bits per character below the same with one phase",
            scaled=_TEXT,
        ),
        Claim(
            id="int4-gradients",
            text="Gradients need the range of an exponent: as INT4 they train worse.",
            where="The section on the radix-4 FP4 format",
            paper=None,
            bars={"quick": at_least(0.06), "full": at_least(0.4)},
            unit="bits per character below the same with INT4 gradients",
            scaled=_TEXT,
        ),
    ),
    api=(
        "mmxx.training.fourbit:convert",
        "mmxx.training.fourbit:unconvert",
        "mmxx.training.fourbit:stats",
        "mmxx.training.fourbit:gemm",
        "mmxx.training.fourbit:Recipe",
        "mmxx.training.fourbit:RECIPES",
        "mmxx.training.fourbit:QuantLinear",
        "mmxx.training.fourbit:QuantConv2d",
        "mmxx.training.fourbit:QuantEmbedding",
        "mmxx.training.fourbit:PACT",
        "mmxx.training.fourbit:Radix4FP4",
        "mmxx.training.fourbit:Log2FP4",
        "mmxx.training.fourbit:Int4Sym",
        "mmxx.training.fourbit:quantize",
        "mmxx.training.fourbit:encode",
        "mmxx.training.fourbit:decode",
        "mmxx.training.fourbit:pack",
        "mmxx.training.fourbit:unpack",
        "mmxx.training.fourbit:sawb_alpha",
        "mmxx.training.fourbit:pact_parameters",
        "mmxx.training.fourbit:synchronise_scales",
        "mmxx.training.fourbit:skip_nonfinite",
        "mmxx.training.fourbit:export_int4",
        "mmxx.training.fourbit:import_int4",
    ),
    experiment="mmxx.training.fourbit.experiment:run",
    extra="torch",
    departs=(
        "The authors published no code. GradScale here keeps a layer's largest scaled gradient in "
        "$(0.8, 1.6] \\cdot 4^3$, by one halving or doubling a step; the first gradient sets it.",
        "The even phase goes to the input's gradient and the odd one to the weight's; the range "
        "is $4^{-3}$ to $4^3$, and what is below $4^{-3} / 1.6$ becomes 0.",
        "Convolutions of one pixel have four bits by default; the paper keeps them in 8 bits in "
        "ResNets, which Recipe(eight_bit_1x1=True) does with a power of two for each tensor.",
        "Activations with sign are clipped as weights are, by statistics; PACT is for inputs that "
        "are not negative.",
        "Four-bit products are computed with float32 arithmetic: bits and errors are those of "
        "four-bit hardware, its speed is not. FP16 sums are an option, in pieces of 64.",
    ),
    scale=frozenset({"map", "ddp"}),
)
