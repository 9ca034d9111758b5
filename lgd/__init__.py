"""Learned classifier-free-guidance weights for a frozen diffusion model.

Reference implementation of Galashov, Pokle, Doucet, Gretton, Delbracio and
De Bortoli, "Learn to Guide Your Diffusion Model" (arXiv 2510.00815, ICLR 2026).
Equation numbers in this package are that paper's unless another is named.

Conventions that hold everywhere: time runs from 0 (data) to 1 (noise) and
s < t; `x_t = alpha(t) x_0 + sigma(t) eps`; omega = 0 is the conditional model;
particles are `[batch, particles, *data]`; parameters are arguments.
"""
