"""What NumPy raises for damaged ``.npy`` and ``.npz`` files, whose headers are Python literals."""

import tokenize
import zipfile
import zlib

NPY_DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    OverflowError,  # a negative shape
    MemoryError,
    RecursionError,
    SyntaxError,
    NotImplementedError,  # a compression that zipfile does not know
    RuntimeError,  # an encrypted archive
    tokenize.TokenError,  # a brace that is never closed
    zipfile.BadZipFile,
    zlib.error,
)
