"""Our tokens of CLIP's vocabulary against transformers' CLIPTokenizer.

  python -m venv .parity && .parity/bin/pip install -r requirements-clip-parity.txt
  .parity/bin/pip install --no-deps open_clip_torch  # Only for the vocabulary it holds.
  .parity/bin/python -m experiments.clip_token_parity

A hundred prompts that are easy to get wrong, each to 77 tokens: those below, and draws
of a few of them in one line, so that some are too long. Exits with 1 where a token
differs.
"""

import gzip
import importlib.util
import pathlib
import sys
import tempfile

import numpy as np
from absl import app
from absl import flags
from etils import epath
from etils import epy

from lgd.data.prompts import text

with epy.lazy_imports(error_callback='pip install -r requirements-clip-parity.txt'):
  import transformers

_LENGTH = 77
_NUM_MERGES = 49_152 - 256 - 2  # The file has more; the rest is not used.
_NUM_PROMPTS = 100
_AWKWARD = (
  'a photo of a cat',
  'A PHOTO OF A CAT',
  "it's the dog's, they're not ours; I'd say we've 'em, I'm sure we'll see: don't",
  "IT'S THE DOG'S, THEY'RE",
  'a caf\u00e9 in M\u00fcnchen, \u00c5ngstr\u00f6m',
  'a cafe\u0301 in Mu\u0308nchen, A\u030angstro\u0308m',
  'z\u0351\u036b\u0343\u036a\u0302a\u0315\u035cl\u0334\u0335g\u0328o\u0321',
  '\u00df \u1e9e \u0130 I \u0131 \u01c5 \ufb01ne',
  '\u03c3\u03c2\u03a3 \u039f\u0394\u039f\u03a3',
  '\U0001f600\U0001f643 smiling',
  '\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 family',
  '\U0001f44d\U0001f3fd \U0001f44d\U0001f3ff',
  '\U0001f1ea\U0001f1fa\U0001f1ef\U0001f1f5 flags',
  '\u2764\ufe0f \u2764 1\ufe0f\u20e3',
  '\u4e00\u53ea\u732b\u5750\u5728\u57ab\u5b50\u4e0a',
  '\u732b\u304c\u3044\u308b \u30cd\u30b3 \uff76\uff9e',
  '\uace0\uc591\uc774 \u1100\u1161\u11a8',
  '\u0642\u0637\u0629 \u0639\u0644\u0649 \u0627\u0644\u062d\u0635\u064a\u0631\u0629',
  '\u05d7\u05ea\u05d5\u05dc\u05b8\u05d4 \u200f(\u200erumah)',
  '\u0939\u093f\u0928\u094d\u0926\u0940 \u092c\u093f\u0932\u094d\u0932\u0940',
  '\u0e41\u0e21\u0e27\u0e19\u0e31\u0e48\u0e07\u0e2d\u0e22\u0e39\u0e48',
  'a\ttab and\na line\r\nand\x0bmore\x0cof\x85them',
  '  leading, trailing and   many   spaces  ',
  'no\u00a0break\u2003em\u3000wide\u200bzero\ufeffmark',
  '&amp; &lt;b&gt; &quot;x&quot; &#39;y&#39; &amp;amp; &eacute;',
  '<b>bold</b> <br/>',
  '\x00\x01\x02\x7f\x1b[31m red',
  '\u00e2\u20ac\u2122s mojibake \u00c3\u00a9',
  '2024, 1234567890 3.14159 1e-5 \u00bd \u00b2 \u2163 \u0663\u0664 \u2460',
  '#hashtag @someone https://example.com/a?b=c&d=%20 x@y.org',
  '!!! ??? ... --- ___ *** ((())) [[]] {{}} \\\\ // || ~~ ^^ ``',
  '\u201cquotes\u201d \u2018and\u2019 \u2014 dashes \u2013 \u2026 \u00ab \u00bb',
  "\u2019s \u2019t ' s 's's 'S",
  'supercalifragilisticexpialidocious' * 12,
  'x' * 400,
  '\u732b' * 90,
  '\U0001f600' * 60,
  'word ' * 100,
  'word ' * 75,
  'word ' * 76,
  'a',
  '.',
  '\u00e9',
  '<|startoftext|>',
  'before <|endoftext|> after',
  '<|EndOfText|> <| endoftext |> <start_of_text>',
  '\u221e \u2211 \u222b \u2202x/\u2202t = \u2212\u2207\u00b2x',
  '\u212b \u2126 \ufdfa \uff21\uff22\uff23',
  'snake_case camelCase kebab-case v1.2.3-rc4',
  '\U00020000\U0001d54f \ue000 \uffff \U0010fffd',
)


def run(*, seed: int) -> int:
  """Prints how many prompts have the same tokens, and those that have not.

  Args:
    seed: of the draws.

  Returns:
    The number of prompts that differ.
  """
  rng = np.random.default_rng(seed)
  prompts = list(_AWKWARD)
  while len(prompts) < _NUM_PROMPTS:
    prompts.append(''.join(rng.choice(_AWKWARD, size=rng.integers(2, 6))))
  theirs = reference()
  with tempfile.TemporaryDirectory() as directory:
    path = pathlib.Path(directory) / 'tokenizer.json'
    theirs.backend_tokenizer.save(str(path))
    ours = text.load(path, length=_LENGTH, truncate=True)
  expected = theirs(
    prompts, padding='max_length', truncation=True, max_length=_LENGTH
  ).input_ids
  differs = np.any(ours(prompts) != np.asarray(expected), axis=1)
  for i in np.flatnonzero(differs):
    print(f'differs: {prompts[i]!r}')
  lengths = np.sum(np.asarray(expected) != theirs.eos_token_id, axis=1)
  print(
    f'{len(prompts)} prompts, {np.sum(lengths == _LENGTH - 1)} of them cut:'
    f' {np.sum(differs)} differ'
  )
  return int(np.sum(differs))


def reference():
  """transformers' tokenizer, from the vocabulary that comes with open_clip."""
  spec = importlib.util.find_spec('open_clip')
  if spec is None:
    raise ImportError('pip install --no-deps open_clip_torch')
  path = epath.Path(spec.origin).parent / 'bpe_simple_vocab_16e6.txt.gz'
  lines = gzip.decompress(path.read_bytes()).decode().split('\n')
  merges = [tuple(line.split()) for line in lines[1 : _NUM_MERGES + 1]]
  # Of GPT-2: printable bytes first, in the order of their codes, then the others.
  printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
  letters = [chr(byte) for byte in printable]
  letters += [chr(256 + i) for i in range(256 - len(printable))]
  tokens = [*letters, *(f'{letter}</w>' for letter in letters)]
  tokens += [''.join(merge) for merge in merges]
  tokens += [text.START, text.END]
  vocab = {token: i for i, token in enumerate(tokens)}
  return transformers.CLIPTokenizer(vocab=vocab, merges=merges)


def main(_):
  sys.exit(0 if run(seed=SEED.value) == 0 else 1)


if __name__ == '__main__':
  SEED = flags.DEFINE_integer('seed', 0, 'Of draws of prompts.', lower_bound=0)
  app.run(main)
