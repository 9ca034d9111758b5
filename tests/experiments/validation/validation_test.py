"""Each rule of `validate`: one bad value, and a message with key and value."""

import re

from absl.testing import absltest
from absl.testing import parameterized
from ml_collections import config_dict

from configs import celeba64
from configs import common
from configs import digits
from configs import mixture
from experiments import builders
from experiments import validation
from lgd import errors

NUM_DEVICES = 8

# (key, bad value, what the message must say besides key and value).
BAD = (
  ('seed', -1, 'negative'),
  ('schedule', 'linear', 'rectified_flow, cosine'),
  ('log_every', 0, 'positive'),
  ('checkpoint_every', -5, 'positive'),
  ('mesh.fsdp', 0, 'positive'),
  ('data.name', 'cifar', 'digits, mixture, random_mixture, pairs, mnist, cifar10'),
  ('data.dir', '/nowhere', 'no such directory'),
  ('data.num_classes', 1, 'at least 2'),
  ('data.num_per_class', 1, 'at least 2'),
  ('data.radius', 0.0, 'positive'),
  ('data.std', -0.1, 'positive'),
  ('data.dim', 1, 'at least 2'),
  ('data.num_threads', -1, 'negative'),
  ('data.num_workers', -1, 'negative'),
  ('data.attributes', ('Young',), 'of celeb_a alone'),
  ('data.file', '/nowhere.npz', 'no such file'),
  ('data.size', 0, 'positive'),
  ('data.vocab_size', 200, 'all bytes'),
  ('data.caption_length', 2, 'a start, a token and an end'),
  ('data.encoders', ('clip_s',), 'different ones of clip_b32'),
  ('data.encoders', ('clip_b32',), "'digits' has none; give encoders for coco"),
  ('data.autoencoder', 'module:function', 'captioned images alone'),
  ('data.latent_shape', (8, 4, 4), 'side, side, channels'),
  ('data.components', 0, 'positive'),
  ('reward.name', 'clap', "classifier, clip, or 'module:function'"),
  ('reward.weights', 'clip.npz', 'leave it out'),
  ('reward.nodes', (0.5, 1.0), 'start at 0 and increase'),
  ('reward.nodes', (0.0, 1.0, 1.0), 'start at 0 and increase'),
  ('reward.nodes', (0.0, 1.0, 1.00000001), 'start at 0 and increase'),
  ('reward.nodes', (0.0, float('inf')), 'int32 and float32 can hold'),
  ('guidance.gamma', -0.1, 'negative'),
  ('guidance.gamma', 0.1, '--config.reward.name=classifier'),
  ('guidance.objective', 'reward', '--config.reward.name=classifier'),
  ('frontier.gammas', (0.1, -1.0), 'at least 0'),
  ('frontier.gammas', (0.1, 0.1), 'differ'),
  ('rule.name', 'cfg', 'linear, optimal_scale'),
  ('rule.apg_eta', 1.5, r'\[0, 1\]'),
  ('rule.apg_max_norm', 0.0, 'positive'),
  ('rule.apg_momentum', -1.0, r'\(-1, 1\)'),
  ('rule.power', 2.0, r'\[0, 1\]'),
  ('rule.num_particles', 0, 'positive'),
  ('denoiser.prediction', 'score', 'x0, eps, velocity, v'),
  ('denoiser.width', 0, 'positive'),
  ('denoiser.network', 'vit', 'mlp, unet, mmdit'),
  ('denoiser.network', 'exact', 'mixture, random_mixture, .* --config.denoiser.netw'),
  ('denoiser.depth', 0, 'positive'),
  ('denoiser.patch_size', 0, 'positive'),
  ('denoiser.text_width', 0, 'positive'),
  ('denoiser.text_depth', 0, 'positive'),
  ('denoiser.channels', 0, 'positive'),
  ('denoiser.num_blocks', 0, 'positive'),
  ('denoiser.multipliers', (1, 0), 'positive integers'),
  ('denoiser.attention_sizes', (0.5,), 'resolutions'),
  ('denoiser.head_dim', 6, 'multiple of 4'),
  ('denoiser.dtype', 'float16', 'float32, bfloat16'),
  ('denoiser.weighting', 'snr', 'uniform, sigmoid'),
  ('denoiser.warmup_steps', -1, 'negative'),
  ('denoiser.adam_b2', 1.0, r'\[0, 1\)'),
  ('denoiser.label_dropout', 0.0, 'null prediction'),
  ('denoiser.label_dropout', 1.0, 'null prediction'),
  ('denoiser.batch_size', 0, 'positive'),
  ('denoiser.num_microbatches', 0, 'positive'),
  ('denoiser.num_microbatches', 3, 'divide denoiser.batch_size=128'),
  ('denoiser.num_steps', 0, 'positive'),
  ('denoiser.learning_rate', 0.0, 'positive'),
  ('denoiser.grad_clip', -1.0, 'positive'),
  ('denoiser.ema_decay', 1.0, r'\[0, 1\)'),
  ('denoiser.ema_decay', 0.9999, 'num_steps=1000 .*untrained start; .*ema_decay=0.995'),
  ('denoiser.clip', -1.0, 'negative'),
  ('clip.dim', 0, 'positive'),
  ('clip.patch_size', 0, 'positive'),
  ('clip.width', 0, 'positive'),
  ('clip.width', 50, 'multiple of clip.head_dim=32'),
  ('clip.image_depth', 0, 'positive'),
  ('clip.text_depth', 0, 'positive'),
  ('clip.head_dim', 0, 'positive'),
  ('clip.noise', -0.1, 'negative'),
  ('clip.shift', -1, 'negative'),
  ('clip.batch_size', 0, 'positive'),
  ('clip.num_microbatches', 3, 'divide clip.batch_size=128'),
  ('clip.num_steps', 0, 'positive'),
  ('clip.learning_rate', 0.0, 'positive'),
  ('clip.warmup_steps', -1, 'negative'),
  ('clip.adam_b2', 1.0, r'\[0, 1\)'),
  ('clip.grad_clip', 0.0, 'positive'),
  ('clip.ema_decay', 1.0, r'\[0, 1\)'),
  ('statistics.kind', 'pairs', 'particles, class_groups, pooled_groups'),
  ('statistics.split', 'test', 'train, validation'),
  ('statistics.num_data', 0, 'positive'),
  ('statistics.num_data', 1000, 'multiple of statistics.group_size=64'),
  ('statistics.num_particles', -1, 'positive'),
  ('statistics.group_size', 1, 'at least 2'),
  ('statistics.t_max', 1.5, r'\(0, 1\]'),
  ('statistics.batch_size', 100, 'multiple of statistics.group_size=64'),
  ('statistics.shard_size', 100, 'multiple of statistics.group_size=64'),
  ('guidance.source', 'images', 'statistics, direct'),
  ('guidance.weight', 'mlp', 'network, table'),
  ('guidance.prompts', 'clip', 'prompts=tokens'),
  ('guidance.num_bins', 0, 'positive'),
  ('guidance.confidence', -1.0, 'not be negative'),
  ('guidance.num_particles', 5, '--config.statistics.num_particles=5'),
  ('guidance.group_size', 1, 'at least 2'),
  ('guidance.group_size', 128, '--config.statistics.group_size=128'),
  ('guidance.zeta', 0.0, 'statistics.t_max=0.99'),
  ('guidance.objective', 'mmd', 'self_consistency, l2, score_matching'),
  ('guidance.num_particles', 0, 'positive'),
  ('guidance.num_particles', 1, 'guidance.interaction=0.0'),
  ('guidance.beta', 2.0, "guidance.objective='l2'"),
  ('guidance.beta', 0.0, r'\(0, 2\)'),
  ('guidance.interaction', 1.5, r'\[0, 1\]'),
  ('guidance.churn', -0.1, r'\[0, 1\]'),
  ('guidance.gap', 0.0, r'\(0, 1\)'),
  ('guidance.gap', 0.99, 's_min=0.01 and zeta=0.01'),
  ('guidance.s_min', -0.1, r'\[0, 1\)'),
  ('guidance.zeta', 1.0, r'\[0, 1\)'),
  ('guidance.width', 0, 'positive'),
  ('guidance.depth', 1, 'output layer'),
  ('guidance.batch_size', -8, 'positive'),
  ('guidance.warmup_steps', -1, 'negative'),
  ('guidance.adam_b2', 1.0, r'\[0, 1\)'),
  ('guidance.num_microbatches', -1, 'positive'),
  ('guidance.num_microbatches', 2, 'leave it at 1'),
  ('guidance.num_steps', -1, 'positive'),
  ('guidance.learning_rate', -1e-3, 'positive'),
  ('guidance.grad_clip', 0.0, 'positive'),
  ('guidance.ema_decay', -0.5, r'\[0, 1\)'),
  ('fid.num_samples', 3, 'at least 4'),
  ('fid.labels', 'uniform', 'balanced, data'),
  ('fid.split', 'all', 'train, validation, test'),
  ('fid.num_reference', 0, 'at least 4'),
  ('fid.batch_size', 0, 'positive'),
  ('fid.shard_size', 0, 'positive'),
  ('fid.kid_subset_size', 1, 'at least 2'),
  ('fid.num_neighbors_samples', 3, 'at least 4'),
  ('trajectory.distance', 'lpips', 'pixels, features'),
  ('trajectory.reference', 'test', 'validation, train'),
  ('trajectory.num_references', 1, 'at least 2'),
  ('trajectory.num_particles', 1, 'at least 2'),
  ('trajectory.num_repeats', 0, 'positive'),
  ('trajectory.seed', -1, 'not be negative'),
  ('trajectory.features_share', 1.5, r'\[0, 1\]'),
  ('trajectory.tolerance', -0.1, 'not be negative'),
  ('trajectory.num_candidates', 1, 'at least 2'),
  ('trajectory.omega_max', 0.0, 'positive'),
  ('trajectory.lookahead', -0.1, r'\[0, 1\)'),
  ('trajectory.lookahead_churn', 1.5, r'\[0, 1\]'),
  ('trajectory.memory', 1.0, r'\[0, 1\)'),
  ('trajectory.beta', 2.0, r'\(0, 2\)'),
  ('trajectory.classifier_width', 0, 'positive'),
  ('trajectory.classifier_steps', 0, 'positive'),
  ('trajectory.candidate_power', 0.0, 'positive'),
  ('trajectory.omega_min', 0.1, 'not be above 0'),
  ('trajectory.confidence', -1.0, 'not be negative'),
  ('trajectory.num_blocks', 1, '0 or at least 2'),
  ('trajectory.num_particles', 2, 'less than 2 would be left'),
  ('trajectory.method', 'unknown', 'search, endpoint'),
  ('endpoint.num_updates', 9, 'at least 10'),
  ('endpoint.learning_rate', 0.0, 'positive'),
  ('endpoint.num_knots', 1, 'at least 2'),
  ('endpoint.num_particles', 1, 'at least 2'),
  ('endpoint.num_references', 1, 'at least 2'),
  ('endpoint.held_out', 1.0, r'in \(0, 1\)'),
  ('verdict.kappas', (0.0, 1.0), 'above 0'),
  ('verdict.samples_per_class', 2, 'at least 3'),
  ('verdict.num_blocks', 1, 'at least 2'),
  ('verdict.distance', 'sum', 'pixels, features'),
  ('verdict.confidence', -1.0, 'not be negative'),
  ('classifier.batch_size', 0, 'positive'),
  ('classifier.learning_rate', 0.0, 'positive'),
  ('classifier.weight_decay', -0.1, 'negative'),
  ('trajectory.fit_steps', 0, 'positive'),
  ('trajectory.learning_rate', 0.0, 'positive'),
  ('sweep.beta', (0.5, 2.0), r'in \(0, 2\)'),
  ('sweep.beta', (1.0, 1.0), 'must differ in their first 6 digits'),
  ('sweep.interaction', (), 'tuple of numbers'),
  ('sweep.gap', (0.0,), r'in \(0, 1\)'),
  ('sweep.s_min', (1.0,), r'in \[0, 1\)'),
  ('sweep.churn', (1.5,), r'in \[0, 1\]'),
  ('sweep.num_particles', (1,), 'integers >= 2'),
  ('sweep.learning_rate', (0.0,), 'above 0'),
  ('sweep.num_seeds', 0, 'positive'),
  ('sweep.num_steps', 0, 'positive'),
  ('sweep.batch_size', 0, 'positive'),
  ('sweep.samples_per_class', 1, 'at least 2'),
  ('evaluation.num_seeds', 0, 'positive'),
  ('evaluation.samples_per_class', 1, 'at least 2'),
  ('evaluation.num_prompts', 1, 'at least 2'),
  ('evaluation.num_steps', 0, 'positive'),
  ('evaluation.t_max', 1.5, r'\[1e-6, 1\]'),
  ('evaluation.t_max', 1e-38, r'\[1e-6, 1\]'),
  ('compare.methods', ('cfg',), 'some of .*constant'),
  ('compare.omegas', (0.0, 1.0), 'numbers above 0'),
  ('compare.rates', (float('inf'),), 'int32 and float32 can hold'),
  ('compare.num_steps', (1,), 'integers >= 2'),
  ('compare.num_steps', (3, 3), 'differ'),
  ('compare.omegas', (0.5, 0.5), 'differ'),
  ('compare.rates', (1, 1.0), 'differ'),
  ('compare.methods', ('constant', 'constant'), 'twice'),
  ('compare.match', 'w', 'mean, nfe'),
  ('compare.reference', '', 'name a learned weight'),
  ('evaluation.solver', 'euler', 'first_order'),
  ('evaluation.plan_levels', 0, 'positive'),
  ('evaluation.tolerance', -0.1, 'negative'),
  ('evaluation.churn', 2.0, r'\[0, 1\]'),
  ('evaluation.constants', (), 'tuple of numbers above 0'),
  ('evaluation.constants', (0.5, 'a'), 'a flat tuple'),
  ('evaluation.constants', (0.0,), 'above 0'),
  ('evaluation.constants', (0.3, 0.30000000000000004), 'differ'),
  ('evaluation.interval_omegas', (0.3, 0.3), 'differ'),
  ('evaluation.interval_bounds', (0.3, 0.3000000001), 'differ'),
  ('evaluation.clamp_linear_omegas', (0.3, 0.3), 'differ'),
  ('evaluation.clamp_linear_floors', (0.0, 0.0), 'differ'),
  ('evaluation.kappas', (0.5, 0.5), 'differ'),
  ('evaluation.interval_omegas', (-1.0,), 'above 0'),
  ('evaluation.interval_bounds', (0.5,), 'increasing'),
  ('evaluation.interval_bounds', (0.5, 0.25), 'increasing'),
  ('evaluation.interval_bounds', (0.5, 1.25), r'in \[0, 1\]'),
  ('evaluation.clamp_linear_omegas', (0.0,), 'above 0'),
  ('evaluation.clamp_linear_floors', (-0.5,), 'at least 0'),
  ('evaluation.kappas', (0.0,), 'above 0'),
  ('evaluation.classifier_width', 0, 'positive'),
  ('evaluation.classifier_steps', 0, 'positive'),
)


# Values that no rule of a key looks at: (key, value, its type).
NO_VALUES = (
  ('seed', True, 'an integer'),
  ('seed', 2**31, r'an integer below 2\^31 in size'),
  ('denoiser.warmup_steps', 10**30, 'an integer'),
  ('denoiser.sigmoid_bias', float('nan'), 'finite in float32'),
  ('denoiser.learning_rate', float('inf'), 'finite in float32'),
  ('data.radius', 1e300, 'finite in float32'),
  ('rule.apg_max_norm', float('inf'), 'finite in float32'),
  ('evaluation.constants', (float('inf'),), 'a flat tuple'),
  ('evaluation.kappas', (True,), 'a flat tuple'),
  ('sweep.num_particles', (2, 2**31), 'a flat tuple'),
  ('sweep.beta', ((1.0,),), 'a flat tuple'),
  ('sweep.beta', (1.0, 'a'), 'a flat tuple'),
  ('data.encoders', ([],), 'a flat tuple'),
  ('data.attributes', ({},), 'a flat tuple'),
  ('compare.methods', (None,), 'a flat tuple'),
  ('data.latent_shape', ('a', 'b', 'c'), 'side, side'),
  ('data.latent_shape', (8.0, 8.0, 4), 'side, side'),
  ('denoiser.attention_sizes', ('8',), 'resolutions'),
  ('data.dir', 'd' * 5000, 'cannot be a path'),
  ('data.file', 'a\0b', 'cannot be a path'),
  ('data.encoded_dir', '\udcff', 'cannot be a path'),
  ('rule.weak_workdir', 'http://a', 'cannot be a path'),
  ('reward.weights', 'w' * 5000, 'cannot be a path'),
)


class ValidateTest(parameterized.TestCase):
  @parameterized.parameters(*BAD, *NO_VALUES)
  def test_names_key_value_and_rule(self, key, value, rule):
    config = digits.get_config()
    config.update_from_flattened_dict({key: value})
    pattern = f'^{re.escape(f"{key}={value!r}: ")}.*{rule}'
    with self.assertRaisesRegex(errors.InputError, pattern) as caught:
      validation.validate(config)
    self.assertNotIn('\n', str(caught.exception))

  def test_every_key_has_a_rule(self):
    """A key added to the config without a rule is noticed here."""

    def leaves(config, prefix=''):
      for key, value in config.items():
        if hasattr(value, 'items'):
          yield from leaves(value, f'{prefix}{key}.')
        elif not isinstance(value, bool):  # Whose type is its rule.
          yield f'{prefix}{key}'

    # Anything may do.
    free = {'data.encoded_dir', 'denoiser.sigmoid_bias', 'rule.weak_workdir'}
    self.assertEqual(
      set(leaves(digits.get_config())) - free, {key for key, _, _ in BAD}
    )

  @parameterized.parameters(
    ({'seed': 0}, 'checkpoint_every: missing in the config; start from'),
    ({**common.get_default().to_dict(), 'more': 0}, 'more: no key of any experiment'),
  )
  def test_keys_of_another_program(self, keys, message):
    with self.assertRaisesRegex(errors.InputError, f'^{message}'):
      validation.validate(config_dict.ConfigDict(keys))

  @parameterized.parameters(
    ({'objective': 'reward'}, 'gamma=0.5: .*the reward alone'),
    ({'objective': 'l2', 'weight': 'table'}, 'gamma=0.5: a table'),
  )
  def test_nothing_to_weigh_a_reward_against(self, guidance, rule):
    config = digits.get_config()
    config.reward.name = 'classifier'
    config.guidance.update(**guidance)
    validation.validate(config)
    config.guidance.gamma = 0.5
    with self.assertRaisesRegex(errors.InputError, f'guidance.{rule}'):
      validation.validate(config)

  def test_vectors_have_no_classifier(self):
    config = celeba64.get_config()
    config.reward.name = 'classifier'
    with self.assertRaisesRegex(errors.InputError, "reward.name='classifier': vectors"):
      validation.validate(config)
    config.reward.name = 'module:function'
    validation.validate(config)

  def test_u_nets_are_for_images(self):
    config = mixture.get_config()
    config.denoiser.network = 'unet'
    with self.assertRaisesRegex(errors.InputError, "network='unet': is for images"):
      validation.validate(config)

  def test_u_nets_halve_the_side(self):
    config = digits.get_config()
    config.denoiser.update(network='unet', multipliers=(1, 1, 1, 1))
    validation.validate(config)
    config.denoiser.multipliers = (1, 1, 1, 1, 1)
    with self.assertRaisesRegex(
      errors.InputError, r'denoiser.multipliers=\(1, 1, 1, 1, 1\): the side of data, 8,'
    ):
      validation.validate(config)

  def test_attention_is_of_sizes_that_there_are(self):
    config = digits.get_config()
    config.denoiser.update(network='unet', attention_sizes=(16, 8))
    pattern = r'attention_sizes=\(16, 8\): must be sizes of its levels, \[8, 4\]'
    with self.assertRaisesRegex(errors.InputError, pattern):
      validation.validate(config)

  def test_strengths_may_be_switched_off(self):
    config = digits.get_config()
    empty = dict.fromkeys(('kappas', 'interval_omegas', 'clamp_linear_omegas'), ())
    config.evaluation.update(empty)
    validation.validate(config)

  def test_heads_must_fill_the_channels(self):
    config = digits.get_config()
    config.denoiser.update(network='unet', channels=24, attention_sizes=(4,))
    with self.assertRaisesRegex(errors.InputError, r'head_dim=32: .*channels=24'):
      validation.validate(config)
    config.denoiser.head_dim = 12
    validation.validate(config)

  def test_eps_prediction_needs_sampling_to_start_below_one(self):
    config = digits.get_config()
    config.denoiser.prediction = 'eps'
    with self.assertRaisesRegex(errors.InputError, r'evaluation.t_max=1.0: .*0.99'):
      validation.validate(config)
    config.evaluation.t_max = 0.99
    validation.validate(config)
    config.guidance.update(source='direct', zeta=0.0)
    with self.assertRaisesRegex(errors.InputError, r'guidance.zeta=0.0: .*0.01'):
      validation.validate(config)
    config.guidance.zeta = 0.01
    config.statistics.t_max = 1.0
    with self.assertRaisesRegex(errors.InputError, r'statistics.t_max=1.0: .*0.99'):
      validation.validate(config)

  @parameterized.parameters(
    ('self_consistency', 'statistics'), ('marginal', 'statistics'), ('l2', 'direct')
  )
  def test_what_has_no_closed_form(self, objective, source):
    config = digits.get_config()
    config.guidance.update(weight='table', objective=objective, source=source)
    with self.assertRaisesRegex(
      errors.InputError, f"guidance.objective='{objective}': only .*weight='table'"
    ):
      validation.validate(config)

  def test_second_order_is_deterministic(self):
    config = digits.get_config()
    config.evaluation.update(solver='2m', churn=0.5)
    with self.assertRaisesRegex(
      errors.InputError, "evaluation.solver='2m': .*churn=0.0"
    ):
      validation.validate(config)

  def test_memory_and_two_predictions_a_step(self):
    config = digits.get_config()
    config.evaluation.solver = 'heun'
    validation.validate(config)
    config.rule.name = 'apg_momentum'
    with self.assertRaisesRegex(errors.InputError, "solver='heun': predicts twice"):
      validation.validate(config)

  def test_eps_where_noise_is_not_all(self):
    """Betas end with some signal: eps may be read at t = 1."""
    config = digits.get_config()
    config.denoiser.prediction = 'eps'
    config.schedule = 'ddpm'
    validation.validate(config)

  def test_rules_that_cannot_be_learned_for(self):
    config = digits.get_config()
    config.rule.name = 'angle_domain'
    validation.validate(config)
    with self.assertRaisesRegex(
      errors.InputError, "rule.name='angle_domain': .*linear"
    ):
      validation.require_learnable(config)

  @parameterized.parameters(
    ('fid.labels', 'balanced'),
    ('guidance.weight', 'table'),
    ('guidance.objective', 'class_marginal'),
    ('statistics.kind', 'class_groups'),
  )
  def test_vectors_make_no_classes(self, key, value):
    config = celeba64.get_config()
    validation.validate(config)
    config.update_from_flattened_dict({key: value})
    with self.assertRaisesRegex(
      errors.InputError, f"{key}='{value}': prompts and vectors .*data.attributes"
    ):
      validation.validate(config)
    config.data.attributes = ('Male', 'Smiling')
    if key == 'guidance.weight':
      config.guidance.objective = 'l2'
    validation.validate(config)

  @parameterized.parameters(
    ('data.name', 'celeb_a', 'make no classes'),
    ('rule.name', 'autoguidance', "weak_workdir='': .*DIR"),
  )
  def test_names_what_asks_for_another_key(self, key, value, message):
    config = digits.get_config()
    config.update_from_flattened_dict({key: value})
    with self.assertRaisesRegex(errors.InputError, message) as caught:
      validation.validate(config)
    self.assertIn(f"{key}='{value}'", str(caught.exception))

  def test_batch_of_whole_groups(self):
    config = digits.get_config()
    config.guidance.update(objective='class_marginal', batch_size=96)
    with self.assertRaisesRegex(
      errors.InputError, 'guidance.batch_size=96: .*multiple of guidance.group_size=64'
    ):
      validation.validate(config)
    config.guidance.objective = 'l2'
    validation.validate(config)

  def test_direct_guidance_is_not_bound_by_statistics(self):
    config = digits.get_config()
    config.guidance.update(source='direct', num_particles=8, group_size=128, zeta=0.0)
    validation.validate(config)

  def test_single_particle_is_fine_without_interaction(self):
    config = digits.get_config()
    config.guidance.num_particles = 1
    config.guidance.interaction = 0.0
    validation.validate(config)

  def test_batch_larger_than_the_split(self):
    config = digits.get_config()
    config.denoiser.batch_size = 4096
    data = builders.data.load(config)
    with self.assertRaisesRegex(errors.InputError, 'denoiser.batch_size=4096.*1077'):
      builders.data.batches(config, 'denoiser', data.train)

  def test_batch_that_the_devices_cannot_share(self):
    config = digits.get_config()
    config.guidance.batch_size = 12
    data = builders.data.load(config)
    pattern = 'guidance.batch_size=12: must be a multiple of the 8 devices'
    with self.assertRaisesRegex(errors.InputError, pattern):
      builders.data.batches(config, 'guidance', data.train)


if __name__ == '__main__':
  absltest.main()
