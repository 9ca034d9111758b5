"""Published weights: from the files of others to parameters of our networks."""

from lgd.networks.published import clip
from lgd.networks.published import inception
from lgd.networks.published import squeezenet

__all__ = ('clip', 'inception', 'squeezenet')
