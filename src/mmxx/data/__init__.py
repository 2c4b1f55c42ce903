"""Data: what ships inside the dependencies, and readers for the user's own files.

Embedded, never downloaded: `digits`, `photo` and `photos`, `photo_patches`, `doc_text`, `co2`,
`elnino`. The user's own: `load`, or the reader of one kind (`read_image`, `read_images`,
`read_table`, `read_audio`, `read_text`, `read_mesh`, `read_tu`); `as_graphs` takes graphs of
other libraries. Whatever comes out is a small frozen
dataclass with a ``kind`` and a ``source`` (name, licence, origin, sha256); a file that cannot be
used raises `DataError`, which names the path, what was found and what is accepted.

Example:
    >>> from mmxx.data import digits
    >>> train, test = digits()
    >>> train.images.shape, test.images.shape
    ((1433, 8, 8, 1), (364, 8, 8, 1))
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
