"""The image data sets of TensorFlow Datasets that are known here.

  name                     image      labels              validation        test
  mnist                    28x28x1    10                  last 5,000        test
  cifar10                  32x32x3    10                  last 5,000        test
  imagenet_resized/64x64   64x64x3    1000                last 10,000       validation
  imagenet2012             64x64x3    1000                last 10,000       validation
  celeb_a                  64x64x3    40 attributes       validation        test
  coco_captions/2014       any        captions            last 5,000        val

"Last" is of the official training split in its stored order, which TFDS shuffles once
when it prepares: no seed. Never more than a tenth of it, so that excerpts can be used.

imagenet_resized is the box-averaged release of Chrabaszcz et al. (2017), with the label
order of its authors. imagenet2012 is the original: the largest central square, averaged
by area. celeb_a is the aligned release, 178x218: its central 140x140 square, columns 19
to 158 and rows 39 to 178, averaged by area, as in the code of score-based SDEs (Song et
al., 2021). coco_captions is COCO 2014 in the splits of Karpathy and Fei-Fei (2015): the
largest central square, at the size that a config wants, most often above the square's
own (480 pixels), where the area filter repeats pixels. Splits are of images, some five
captions each. Their `test` and `restval` are not used.
"""

import dataclasses
import functools
from collections.abc import Callable
from collections.abc import Sequence

import numpy as np

from lgd import conditions
from lgd.data import images

SPLITS = ('train', 'validation', 'test')

ATTRIBUTES = (
  '5_o_Clock_Shadow', 'Arched_Eyebrows', 'Attractive', 'Bags_Under_Eyes', 'Bald',
  'Bangs', 'Big_Lips', 'Big_Nose', 'Black_Hair', 'Blond_Hair', 'Blurry', 'Brown_Hair',
  'Bushy_Eyebrows', 'Chubby', 'Double_Chin', 'Eyeglasses', 'Goatee', 'Gray_Hair',
  'Heavy_Makeup', 'High_Cheekbones', 'Male', 'Mouth_Slightly_Open', 'Mustache',
  'Narrow_Eyes', 'No_Beard', 'Oval_Face', 'Pale_Skin', 'Pointy_Nose',
  'Receding_Hairline', 'Rosy_Cheeks', 'Sideburns', 'Smiling', 'Straight_Hair',
  'Wavy_Hair', 'Wearing_Earrings', 'Wearing_Hat', 'Wearing_Lipstick',
  'Wearing_Necklace', 'Wearing_Necktie', 'Young',
)  # fmt: skip


def _unchanged(image: np.ndarray) -> np.ndarray:
  return image


def _central_square_64(image: np.ndarray) -> np.ndarray:
  return images.area_square(image, 64)


def _face_64(image: np.ndarray) -> np.ndarray:
  return images.area_resize(images.central_crop(image, 140), 64)


@dataclasses.dataclass(frozen=True)
class DataSet:
  """A data set as TFDS stores it, and as it is used here.

  Attributes:
    stored: shape of a stored image; None where any size will do.
    shape: of an image here.
    num_classes: of the labels; None where attributes or captions take their place.
    validation: the official split that validates; 'train' means the last of it.
    test: the official split that tests.
    held_out: images taken from 'train' to validate, at most.
    transform: stored image -> image here.
    is_captioned: whether images have captions: an image's label is its record's number.
  """

  stored: tuple[int | None, ...]
  shape: tuple[int, int, int]
  num_classes: int | None
  validation: str
  test: str
  held_out: int = 0
  transform: Callable[[np.ndarray], np.ndarray] = _unchanged
  is_captioned: bool = False

  def at(self, size: int) -> 'DataSet':
    """The same with central squares of `size`."""
    square = functools.partial(images.area_square, size=size)
    return dataclasses.replace(self, shape=(size, size, 3), transform=square)

  def conditions(self, attributes: Sequence[str] = ()) -> conditions.Conditions:
    """Conditions of the images; `attributes`, if any, number the classes."""
    if self.num_classes is None and not attributes:
      return conditions.Attributes(len(ATTRIBUTES))
    return conditions.Labels(self.num_classes or 2 ** len(attributes))

  def official(self, split: str) -> str:
    """Name of the official split that holds one of `SPLITS`."""
    return {'train': 'train', 'validation': self.validation, 'test': self.test}[split]

  def rows(self, split: str, num_stored: int) -> range:
    """Rows of the official split, of `num_stored`, that make up one of `SPLITS`."""
    held_out = min(self.held_out, num_stored // 10)
    if split == 'train':
      return range(num_stored - held_out)
    if self.official(split) == 'train':
      return range(num_stored - held_out, num_stored)
    return range(num_stored)


DATA_SETS = {
  'mnist': DataSet((28, 28, 1), (28, 28, 1), 10, 'train', 'test', held_out=5_000),
  'cifar10': DataSet((32, 32, 3), (32, 32, 3), 10, 'train', 'test', held_out=5_000),
  'imagenet_resized/64x64': DataSet(
    (64, 64, 3), (64, 64, 3), 1000, 'train', 'validation', held_out=10_000
  ),
  'imagenet2012': DataSet(
    (None, None, 3),
    (64, 64, 3),
    1000,
    'train',
    'validation',
    held_out=10_000,
    transform=_central_square_64,
  ),
  'celeb_a': DataSet(
    (218, 178, 3), (64, 64, 3), None, 'validation', 'test', transform=_face_64
  ),
  'coco_captions/2014': DataSet(
    (None, None, 3), (512, 512, 3), None, 'train', 'val', 5_000, is_captioned=True
  ).at(512),
}
