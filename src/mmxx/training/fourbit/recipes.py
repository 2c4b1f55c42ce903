"""Which numbers of a layer are rounded to four bits, and how."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from mmxx.training.fourbit.formats import Format, Int4Sym, Log2FP4, Radix4FP4
from mmxx.training.fourbit.rounding import LARGEST_EXPONENT

_RADIX4 = Radix4FP4()


@dataclass(frozen=True)
class Recipe:
    """The operands of a layer's three products.

    Attributes:
        weights: "sawb": INT4, clipped where the statistics of the weights say. None: as they are.
        activations: "sawb": INT4 with sign, clipped likewise, by running statistics in
            evaluation. "pact": 0 to 15, clipped at a learned value, for layers whose input is
            not negative. None: as they are.
        gradients: `Radix4FP4`, `Log2FP4` or `Int4Sym`, or None: as they are.
        scale: How a gradient is scaled before it is rounded. "adaptive": each layer has a power
            of two that follows its largest gradient by one doubling or halving a step
            (GradScale). "stateless": the power of two that fits the gradient at hand. "max": its
            largest number becomes the largest of the format. A number, a power of two: one loss
            scale for all layers.
        two_phases: Round the gradient to powers of 4 for the input's gradient and to twice
            powers of 4 for the weight's (two-phase rounding); with `Radix4FP4` only.
        samples: How often a stochastic gradient is drawn for the weight's gradient, which takes
            the mean.
        accumulate: "fp32", or "fp16": products are summed in pieces of 64, and the sums rounded
            to a mantissa of 9 bits.
        pact_alpha: Where a new "pact" layer clips.
        eight_bit_1x1: Give convolutions with a kernel of one pixel 8-bit floats instead, as the
            paper's ResNets have: E4M3 for weights and inputs, E5M2 for gradients, each scaled by
            the power of two that fits the tensor at hand.

    Raises:
        ValueError: A value is not among these, or does not go with another.

    Example:
        >>> Recipe(gradients=Log2FP4(), two_phases=False).scale
        'adaptive'
    """

    weights: Literal["sawb"] | None = "sawb"
    activations: Literal["sawb", "pact"] | None = "sawb"
    gradients: Format | None = _RADIX4
    scale: Literal["adaptive", "stateless", "max"] | float = "adaptive"
    two_phases: bool = True
    samples: int = 1
    accumulate: Literal["fp32", "fp16"] = "fp32"
    pact_alpha: float = 6.0
    eight_bit_1x1: bool = False

    def __post_init__(self) -> None:
        if self.weights not in ("sawb", None):
            raise ValueError(f"weights must be 'sawb' or None, got {self.weights!r}")
        if self.activations not in ("sawb", "pact", None):
            raise ValueError(
                f"activations must be 'sawb', 'pact' or None, got {self.activations!r}"
            )
        if not isinstance(self.gradients, (Radix4FP4, Log2FP4, Int4Sym, type(None))):
            raise ValueError(
                f"gradients must be Radix4FP4(), Log2FP4(), Int4Sym() or None, "
                f"got {self.gradients!r}"
            )
        if isinstance(self.scale, str):
            if self.scale not in ("adaptive", "stateless", "max"):
                raise ValueError(
                    "scale must be 'adaptive', 'stateless', 'max' or a power of two, "
                    f"got {self.scale!r}"
                )
        elif not (0 < self.scale < math.inf and math.frexp(self.scale)[0] == 0.5) or (
            abs(math.log2(self.scale)) > LARGEST_EXPONENT
        ):
            raise ValueError(
                f"scale must be a power of two from 2**-{LARGEST_EXPONENT} to "
                f"2**{LARGEST_EXPONENT}, got {self.scale}"
            )
        if self.two_phases and not isinstance(self.gradients, (Radix4FP4, type(None))):
            raise ValueError(
                f"two_phases needs gradients=Radix4FP4(), got {self.gradients!r}; "
                "set two_phases=False"
            )
        if self.samples < 1 or (self.samples > 1 and not self.stochastic):
            raise ValueError(
                "samples must be 1, or more with gradients=Log2FP4(stochastic=True), "
                f"got {self.samples}"
            )
        if self.accumulate not in ("fp32", "fp16"):
            raise ValueError(f"accumulate must be 'fp32' or 'fp16', got {self.accumulate!r}")
        if not 0 < self.pact_alpha < math.inf:
            raise ValueError(f"pact_alpha must be above 0, got {self.pact_alpha}")

    @property
    def stochastic(self) -> bool:
        """Whether gradients are rounded at random."""
        return isinstance(self.gradients, Log2FP4) and self.gradients.stochastic


RECIPES: dict[str, Recipe] = {
    "ibm4": Recipe(),
    "luq4": Recipe(gradients=Log2FP4(stochastic=True), scale="max", two_phases=False, samples=2),
}
"""Recipes by name.

``ibm4`` is the paper's: radix-4 gradients, GradScale, two-phase rounding. ``luq4`` is the later
one with stochastic powers of 2 (LUQ), two samples for the weight's gradient.
"""


def recipe_of(recipe: str | Recipe) -> Recipe:
    """A recipe, or the one of that name.

    Raises:
        ValueError: There is none.
    """
    if isinstance(recipe, Recipe):
        return recipe
    if recipe not in RECIPES:
        raise ValueError(f"recipe must be a Recipe or one of {', '.join(RECIPES)}, got {recipe!r}")
    return RECIPES[recipe]
