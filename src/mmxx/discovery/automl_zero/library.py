"""Programs written by hand: linear regression, a network of two layers, and a damaged one."""

from __future__ import annotations

from mmxx.discovery.automl_zero.program import Program

LINEAR = Program.from_text("""
def Setup():
  s2 = 0.01
def Predict():
  s1 = dot(v1, v0)
def Learn():
  s3 = s0 - s1
  s3 = s2 * s3
  v2 = s3 * v0
  v1 = v1 + v2
""")
"""Linear regression by stochastic gradient descent, with a learning rate of 0.01."""

NEURAL_NET = Program.from_text("""
def Setup():
  v2 = gaussian(0, 0.1, n_features)
  m0 = gaussian(0, 0.1, (n_features, n_features))
  s3 = 0.01
def Predict():
  v3 = dot(m0, v0)
  v3 = v3 + v1
  v4 = maximum(v3, v5)
  s1 = dot(v4, v2)
  s1 = s1 + s2
def Learn():
  s4 = s0 - s1
  s4 = s3 * s4
  s2 = s2 + s4
  v6 = s4 * v4
  v2 = v2 + v6
  v7 = s4 * v2
  v8 = heaviside(v3, 1.0)
  v7 = v8 * v7
  v1 = v1 + v7
  m1 = outer(v7, v0)
  m0 = m0 + m1
""")
"""Two layers with biases and ReLU, learnt by backpropagation with a rate of 0.01.

As the authors wrote it: the second layer is changed before the error goes back through it, so that
the step is not quite the gradient.
"""

DAMAGED_NEURAL_NET = Program(NEURAL_NET.setup[2:], NEURAL_NET.predict, NEURAL_NET.learn)
"""`NEURAL_NET` whose weights begin at zero, where they stay: a test for the search to repair."""
