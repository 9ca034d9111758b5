"""Gram statistics: all that the objectives need of one denoiser pass.

At a datum x_0 and a time t, for particles j = 1..m with noise e_j,

  (1)  x_t = alpha_t x_0 + sigma_t e_j
       r_j = x0_cond_j - x_0,  delta_j = x0_cond_j - x0_null_j

By alpha_s = coef_xt alpha_t + coef_x0 (`transitions`, (5)) the guided particle at s is

  (2)  xg_j = alpha_s x_0 + u_j + std z_j
  (3)  u_j  = coef_xt sigma_t e_j + coef_x0 (r_j + omega delta_j)

so with the Gram matrix G of {e_j}, {r_j}, {delta_j} every <u_j, u_k> is a quadratic in
omega, w^T G_jk w with w = (coef_xt sigma_t, coef_x0, coef_x0 omega). What noise is
left, z_j and that of the true particles, is Gaussian and independent, and integrated
out: with M(q, v) = E||mu + sqrt(v) g||^beta (`mmd`) the loss (22) of the paper has, for
given e_j, the mean

  (4)  L = 1/m sum_j M(||u_j||^2, std^2 + sigma_s^2)
           - lambda/2 1/(m(m-1)) sum_{j != k} M(||u_j - u_k||^2, 2 std^2)

G holds for every s < t, churn, beta, lambda and network omega(c, s, t) that guides as
in (2): one pass over the data serves them all, and neither images nor the denoiser are
needed again.

The e_j may be antithetic: the first k = ceil(m/2) > 1 particles have noise of their
own, the others the negative of it, e_k+j = -e_j. What is odd in e_j then cancels in the
first sum of (4), whose mean is the same. Particles j and k + j are not independent: the
second sum leaves these pairs out.

For n data at one t, one particle each, the Gram matrix of {x_i}, {e_i}, {r_i} and
{delta_i} gives in the same way the distances between data: the marginal loss (15) is

  (5)  L = 1/(n(n-1)) sum_{i != k} M(||y_i - alpha_s x_k||^2, std^2 + sigma_s^2)
           - lambda/2 1/(n(n-1)) sum_{i != k} M(||y_i - y_k||^2, 2 std^2)
       y_i = alpha_s x_i + u_i

class-conditional if the n data share their condition, pooled if they do not. Several
guidance directions, omega_1 delta^1 + omega_2 delta^2 + ..., only add vectors to G.

l2 and score matching are quadratic in omega; wherever data share it, the minimum is

  (6)  omega = -E[b^2 <delta, r> + b coef_xt sigma_t <delta, e>] / E[b^2 ||delta||^2]
  (7)  omega = -E<delta, r> / E||delta||^2

with b = coef_x0.
"""

from lgd.statistics.gram_matrix import gram
from lgd.statistics.gram_matrix import group_gram
from lgd.statistics.gram_matrix import num_independent
from lgd.statistics.gram_matrix import pack
from lgd.statistics.gram_matrix import subset
from lgd.statistics.gram_matrix import unpack
from lgd.statistics.losses import l2
from lgd.statistics.losses import l2_terms
from lgd.statistics.losses import marginal
from lgd.statistics.losses import score_matching
from lgd.statistics.losses import score_matching_terms
from lgd.statistics.losses import self_consistency
from lgd.statistics.reward_profiles import reward_at
from lgd.statistics.reward_profiles import reward_profile

__all__ = (
  'gram',
  'group_gram',
  'l2',
  'l2_terms',
  'marginal',
  'num_independent',
  'pack',
  'reward_at',
  'reward_profile',
  'score_matching',
  'score_matching_terms',
  'self_consistency',
  'subset',
  'unpack',
)
