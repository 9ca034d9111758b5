"""Published encoders of text, as `experiments.encode_text` calls them.

  kind   weights                            tokenizer          runs on
  clip   .npz, of experiments.convert_clip  a tokenizer.json   JAX
  t5     a directory of transformers' own, tokenizer included  PyTorch

A T5 directory is what `save_pretrained` writes or huggingface.co holds; nothing is
downloaded.
"""

import hashlib
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import jax
import numpy as np
from etils import epath
from etils import epy

from lgd import errors
from lgd import networks
from lgd.data.prompts import embeddings
from lgd.data.prompts import text
from lgd.networks import published
from lgd.storage import files

with epy.lazy_imports():  # Optional: T5 alone needs them.
  import torch
  import transformers

CLIP = {
  'clip_b32': networks.CLIP_B32,
  'clip_b16': networks.CLIP_B16,
  'clip_l14': networks.CLIP_L14,
  # Not published: of smoke tests, with tokens of `data.prompts.text.train`.
  'clip_tiny': networks.ClipConfig(
    64, 32, 8, 64, 1, 64, 2, length=24, vocab_size=1000, eot=2, head_dim=32
  ),
}


class TextEncoder(NamedTuple):
  """An encoder that makes embeddings of captions, in two steps.

  Rows of tokens are padded at their ends. Their lengths count what is none.
  """

  tokenize: Callable[[Sequence[str]], tuple[np.ndarray, np.ndarray]]
  # captions -> tokens [n, length], lengths [n]
  encode: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
  # those -> pooled [n, pooled_dim], tokens [n, length, dim], numbers at padding too
  identity: dict[str, Any]  # What decides the result.


def load(
  name: str, *, weights: str, tokenizer: str, length: int, truncate: bool
) -> TextEncoder:
  """An encoder of `embeddings.ENCODERS`.

  Args:
    name: of the encoder.
    weights: file or directory, as in the table.
    tokenizer: file, of CLIP.
    length: of rows of tokens; at most 77 for CLIP.
    truncate: whether the ends of captions that do not fit are cut off.

  Raises:
    errors.InputError: an unknown name, weights or tokenizer of something else, or
      packages that are not installed.
  """
  if name not in embeddings.ENCODERS:
    raise errors.InputError(
      f'--encoder={name}: must be one of {", ".join(embeddings.ENCODERS)}.'
    )
  of_kind = {'clip': _clip, 't5': _t5}[embeddings.ENCODERS[name].kind]
  encoder = of_kind(name, weights, tokenizer, length, truncate)
  common = {'encoder': name, 'length': length, 'truncate': truncate}
  return encoder._replace(identity={**common, **encoder.identity})


def _clip(name, weights, tokenizer, length, truncate):
  config = CLIP[name]
  if not 3 <= length <= config.length:
    raise errors.InputError(
      f'data.caption_length={length}: {name} has positions for {config.length} tokens;'
      f' take 3 to {config.length}.'
    )
  try:
    tokens_of = text.load(tokenizer, length=length, truncate=truncate)
  except (OSError, ValueError) as error:
    raise errors.InputError(f'--tokenizer={tokenizer}: {error}') from error
  end, size = (
    tokens_of.encoding.token_to_id(text.END), tokens_of.encoding.get_vocab_size()
  )  # fmt: skip
  if end != config.eot or size > config.vocab_size:
    raise errors.InputError(
      f'--tokenizer={tokenizer}: has {size} tokens and ends texts with {end}; {name}'
      f' has {config.vocab_size} and {config.eot}. Give the tokenizer of these weights.'
    )
  try:
    params = published.clip.load(weights, config)
  except errors.FileError as error:
    raise errors.InputError(f'--weights: {error}') from error
  net = networks.CLIP(config)
  apply = jax.jit(
    lambda params, tokens: net.apply(params, tokens, method='encode_text')
  )

  def tokenize(captions):
    tokens = tokens_of(captions)
    return tokens, np.argmax(tokens == config.eot, axis=1) + 1

  def encode(tokens, lengths):
    del lengths  # What follows the end changes nothing.
    return jax.device_get(apply(params, tokens))

  identity = {'weights': files.sha256(weights), 'tokenizer': files.sha256(tokenizer)}
  return TextEncoder(tokenize, encode, identity)


def _t5(name, weights, tokenizer, length, truncate):
  if tokenizer:
    raise errors.InputError(
      f'--tokenizer={tokenizer}: a T5 directory has its own; leave it out.'
    )
  directory, dim = files.user_path(weights), embeddings.ENCODERS[name].dim
  config = directory / 'config.json'
  try:
    found = files.read_json(config) if weights and config.exists() else {}
  except errors.FileError as error:
    raise errors.InputError(f'--weights={weights}: {error} Copy it again.') from error
  found_dim = found.get('d_model') if isinstance(found, dict) else None
  if found_dim != dim:
    raise errors.InputError(
      f'--weights={weights}: {name} has d_model={dim} in its config.json, here it is'
      f' {found_dim}; give the directory of a T5 of this size.'
    )
  try:
    # No code of the directory is run, neither a module of it nor a pickle's.
    tokens_of = transformers.AutoTokenizer.from_pretrained(
      weights, local_files_only=True, trust_remote_code=False
    )
    model = transformers.T5EncoderModel.from_pretrained(
      weights, local_files_only=True, dtype=torch.float32, weights_only=True
    )
  except ImportError as error:
    raise errors.InputError(
      f'--encoder={name}: needs PyTorch and transformers; install with: pip install -r'
      f' requirements-text.txt ({error}).'
    ) from error
  except (OSError, ValueError) as error:
    raise errors.InputError(
      f'--weights={weights}: cannot be read by transformers: {error}'
    ) from error
  device = 'cuda' if torch.cuda.is_available() else 'cpu'
  model = model.to(device).eval()

  def tokenize(captions):
    rows = np.full((len(captions), length), tokens_of.pad_token_id, np.int32)
    lengths = np.zeros(len(captions), np.int32)
    for i, ids in enumerate(tokens_of(list(captions))['input_ids']):
      if len(ids) > length and not truncate:
        raise errors.CaptionError(
          f'caption {i} is {captions[i]!r}: has {len(ids)} tokens, {length} fit;'
          ' shorten it, or take longer rows.'
        )
      if len(ids) > length:  # The last is the end of text.
        rows[i], lengths[i] = [*ids[: length - 1], ids[-1]], length
        continue
      rows[i, : len(ids)], lengths[i] = ids, len(ids)
    return rows, lengths

  def encode(tokens, lengths):
    mask = np.arange(tokens.shape[1]) < lengths[:, None]
    with torch.no_grad():
      hidden = model(
        input_ids=torch.as_tensor(tokens, dtype=torch.long, device=device),
        attention_mask=torch.as_tensor(mask, dtype=torch.long, device=device),
      ).last_hidden_state
    hidden = hidden.cpu().numpy()
    return np.sum(hidden * mask[..., None], axis=1) / lengths[:, None], hidden

  kinds = {
    'weights': ('.safetensors', '.bin'),
    'tokenizer': ('.model', 'tokenizer.json'),
  }
  identity = {key: _sha256(directory, endings) for key, endings in kinds.items()}
  return TextEncoder(tokenize, encode, identity)


def _sha256(directory: epath.Path, endings: tuple[str, ...]) -> str:
  """The sha256 of the files with these endings, and of their names."""
  digest = hashlib.sha256()
  for path in sorted(directory.iterdir()):
    if path.name.endswith(endings):
      digest.update(f'{path.name} {files.sha256(path)}\n'.encode())
  return digest.hexdigest()
