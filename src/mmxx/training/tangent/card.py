"""What the constant tangent kernel is and what its paper claims."""

from mmxx.lab.catalog import Card, Claim, Paper, at_least, at_most, between

_SMALL = (
    "40 pictures of two digits, two hidden layers of SiLU, gradient descent of 400 steps (full: "
    "100); the "
    "theorem is for widths that grow without end."
)
_NARROW = "A layer of one unit between the two wide ones; the mean of eight networks a seed."

CARD = Card(
    name="tangent",
    title="Tangent kernel",
    paper=Paper(
        title="On the linearity of large non-linear models: when and why the tangent kernel is "
        "constant",
        authors=("Chaoyue Liu", "Libin Zhu", "Mikhail Belkin"),
        venue="NeurIPS",
        year=2020,
        url="https://arxiv.org/abs/2010.01092",
        arxiv="2010.01092",
    ),
    summary=(
        "Wide networks become linear in their parameters where the Hessian of their output is "
        "small, as $1/\\sqrt m$, and then their tangent kernel stays what it was; a non-linear "
        "output or a narrow layer ends that. Tangent kernels of any torch network by products "
        "per layer, norms of Hessians, linearised networks and kernels of infinite width."
    ),
    claims=(
        Claim(
            id="hessian-shrinks",
            text="With a linear output the norm of the Hessian falls as $1/\\sqrt m$.",
            where="The theorem on networks with a linear output: $\\tilde O(1/\\sqrt m)$",
            paper=-0.5,
            bars={"quick": between(-0.6, -0.35), "full": between(-0.6, -0.35)},
            unit="exponent of the width",
            scaled=_SMALL + " At finite width a logarithm makes the exponent a little flatter.",
            sham=True,
        ),
        Claim(
            id="kernel-constant",
            text="With a linear output the change of the kernel in training falls with the width.",
            where="The bound of the kernel's change in a ball by the Hessian's norm",
            paper=None,
            bars={"quick": at_most(-0.4), "full": at_most(-0.4)},
            unit="exponent of the width",
            scaled=_SMALL,
            sham=True,
        ),
        Claim(
            id="tanh-flat",
            text="With a non-linear output the change does not fall with the width.",
            where="Abstract: not constant when the last layer is non-linear",
            paper=None,
            bars={"quick": at_most(0.2), "full": at_most(0.2)},
            unit="absolute exponent of the width, tanh output",
            scaled=_SMALL,
        ),
        Claim(
            id="tanh-changes",
            text="With a non-linear output the kernel of a wide network changes much.",
            where="Abstract: not constant when the last layer is non-linear",
            paper=None,
            bars={"quick": at_least(0.5), "full": at_least(0.5)},
            unit="relative change at width 1024, tanh output",
            scaled=_SMALL,
        ),
        Claim(
            id="bottleneck-flat",
            text="With a narrow layer the change does not fall with the width.",
            where="The part on networks with a bottleneck",
            paper=None,
            bars={"quick": at_most(0.2), "full": at_most(0.2)},
            unit="absolute exponent of the width, bottleneck",
            scaled=_NARROW,
        ),
        Claim(
            id="bottleneck-changes",
            text="With a narrow layer the kernel of a wide network changes much.",
            where="The part on networks with a bottleneck",
            paper=None,
            bars={"quick": at_least(0.5), "full": at_least(0.5)},
            unit="relative change at width 1024, bottleneck",
            scaled=_NARROW,
        ),
        Claim(
            id="output-decides",
            text="At one width the output layer decides whether the kernel is constant.",
            where="Abstract: not constant when the last layer is non-linear",
            paper=None,
            bars={"quick": at_least(20), "full": at_least(20)},
            unit="× the change of the linear output, at width 1024",
            scaled=_SMALL,
            sham=True,
        ),
        Claim(
            id="limit-rate",
            text="The kernel at the beginning nears that of infinite width as $1/\\sqrt m$.",
            where="Introduction, after Jacot, Gabriel and Hongler",
            paper=None,
            bars={"quick": between(-0.6, -0.4), "full": between(-0.6, -0.4)},
            unit="exponent of the width of the relative error",
            scaled="One hidden layer of ReLU, widths to 4,096 (full: 65,536).",
        ),
    ),
    api=(
        "mmxx.training.tangent:ntk",
        "mmxx.training.tangent:jacobian",
        "mmxx.training.tangent:hessian_norm",
        "mmxx.training.tangent:hessian_product",
        "mmxx.training.tangent:two_layer_hessian_norm",
        "mmxx.training.tangent:linearize",
        "mmxx.training.tangent:taylor",
        "mmxx.training.tangent:Taylor",
        "mmxx.training.tangent:kernel_drift",
        "mmxx.training.tangent:training_outputs",
        "mmxx.training.tangent:pl_star",
        "mmxx.training.tangent.infinite:ntk",
        "mmxx.training.tangent.infinite:nngp",
        "mmxx.training.tangent.infinite:conv_ntk",
        "mmxx.training.tangent.infinite:conv_nngp",
        "mmxx.training.tangent:NTKRegressor",
        "mmxx.training.tangent:NTKClassifier",
        "mmxx.training.tangent:NTKLinear",
        "mmxx.training.tangent:Scaled",
        "mmxx.training.tangent:ntk_mlp",
    ),
    experiment="mmxx.training.tangent.experiment:run",
    extra="torch",
    departs=(
        "The change of the kernel is that from beginning to end of the training; on the way it "
        "is drawn.",
        "The norm of the Hessian is that at the beginning, the largest over a few samples; the "
        "theorem bounds it in a ball around it.",
        "The learning rate is the number of samples over the largest eigenvalue of each "
        "network's own kernel, so that all arms train at the same relative speed.",
        "The linearised network is not trained: the closed form of its gradient descent is used.",
    ),
    scale=frozenset({"map"}),
)
