"""What SIREN is and what its paper claims."""

from mmxx.lab.catalog import Card, Claim, Paper, at_least

_FIT = (
    "Every second pixel of a 127² photograph (64²) in 200 steps, at full scale of a 255² one "
    "(128²) in 500; 128 units instead of 256. Every arm has the same steps, its better learning "
    "rate of 1e-4 and 1e-3, and the weights of its best step."
)
_POISSON = (
    "64² pixels and 300 steps instead of the paper's starfish and 10,000; 128 units instead of "
    "256; central differences instead of Sobel's filter; compared after the best scale and offset."
)

CARD = Card(
    name="siren",
    title="SIREN",
    paper=Paper(
        title="Implicit Neural Representations with Periodic Activation Functions",
        authors=(
            "Vincent Sitzmann",
            "Julien N. P. Martel",
            "Alexander W. Bergman",
            "David B. Lindell",
            "Gordon Wetzstein",
        ),
        venue="NeurIPS",
        year=2020,
        url="https://arxiv.org/abs/2006.09661",
        arxiv="2006.09661",
    ),
    summary=(
        "A small network of sines, $\\sin(\\omega_0 (W x + b))$, that stands for a picture, a "
        "sound, a shape or the solution of an equation, with all its derivatives. For those who "
        "need a signal that can be asked anywhere and differentiated exactly."
    ),
    claims=(
        Claim(
            id="beats-baselines",
            text=(
                "At equal steps a SIREN comes closer to a photograph than ReLU, tanh and ReLU with "
                "a positional encoding."
            ),
            where="Figure 1 and section 4.1",
            paper=None,
            bars={"quick": at_least(8), "full": at_least(8)},
            unit="dB over the best baseline",
            scaled=_FIT,
            sham=True,
        ),
        Claim(
            id="fits-picture",
            text="A SIREN fits a photograph within a few hundred steps.",
            where="Figure 1 and section 4.1",
            paper=None,
            bars={"quick": at_least(40)},
            unit="dB",
            scaled=_FIT,
            sham=True,
        ),
        Claim(
            id="poisson",
            text="A SIREN recovers a picture from its gradients $\\nabla f$ alone.",
            where="Figure 3 and the supplement's table of Poisson reconstructions",
            paper=32.91,
            bars={"full": at_least(30)},
            unit="dB",
            scaled=_POISSON,
            sham=True,
        ),
        Claim(
            id="poisson-margin",
            text="From gradients alone a SIREN recovers a picture better than ReLU and tanh do.",
            where="Figure 3 and the supplement's table of Poisson reconstructions",
            paper=None,
            bars={"full": at_least(12)},
            unit="dB over the better of ReLU and tanh",
            scaled=_POISSON,
            sham=True,
        ),
    ),
    api=(
        "mmxx.signals.siren:Siren",
        "mmxx.signals.siren:SirenField",
        "mmxx.signals.siren:SirenRegressor",
        "mmxx.signals.siren:grid",
        "mmxx.signals.siren:gradient",
        "mmxx.signals.siren:laplacian",
        "mmxx.signals.siren:divergence",
        "mmxx.signals.siren:jacobian",
        "mmxx.signals.siren:hessian",
        "mmxx.signals.siren:value_gradient",
        "mmxx.signals.siren:value_gradient_laplacian",
        "mmxx.signals.siren:HyperNetwork",
    ),
    experiment="mmxx.signals.siren.experiment:run",
    extra="torch",
    departs=(
        "The frequency multiplies the bias too, as in the authors' code; the paper's equation "
        "writes $\\sin(\\omega_0 W x + b)$.",
        "Where every step sees all points the weights of the lowest loss are kept, not the last: "
        "at a rate of 1e-3 the loss of a SIREN spikes.",
        "The first frequency is chosen from the signal's spectrum and a short trial unless it is "
        "given; the paper takes 30, and 3,000 for sound.",
        "Gradients of pictures are central differences in units of the coordinates, so that the "
        "recovered picture has the right scale; the authors use Sobel's filter, unscaled.",
        "Points off a surface are told by a mask, not by a distance of -1.",
        "ReLU after an encoding begins with torch's weights, not He's: it is 5 dB better so.",
        "The wave equation and full-waveform inversion are left out.",
    ),
    scale=frozenset({"ddp", "map"}),
)
