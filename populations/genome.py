"""A genome: one quantized Q-network with its lineage, named by a hash of its content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from populations.errors import GenomeShapeError, GenomeValueError
from populations.network import NetworkSpec, Weights
from populations.quantization import LARGEST_SCALE, MAX_CODE, dequantize, quantize

VectorDtype = Literal["float32", "float16"]
ID_LENGTH = 12


@dataclass(frozen=True, slots=True)
class Lineage:
    """Where a genome comes from; not part of its identity.

    Attributes:
        kind: What it was born as: ``ancestor``, ``student``, ``child`` or ``control``.
        generation: Generation of its birth; students are generation 0.
        index: Its number within that generation.
        parents: Ids of its parents, the first one first.
        operator: Name of the operator that made it.
        basis: Id of the genome whose order of hidden units it keeps. Two genomes of one basis
            need no alignment before they are crossed.
    """

    kind: str
    generation: int
    index: int
    parents: tuple[str, ...] = ()
    operator: str = ""
    basis: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the lineage as plain JSON values."""
        return {
            "kind": self.kind,
            "generation": self.generation,
            "index": self.index,
            "parents": list(self.parents),
            "operator": self.operator,
            "basis": self.basis,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Lineage:
        """Rebuild a lineage from :meth:`to_dict`.

        Raises:
            GenomeValueError: A field is missing or of the wrong type.
        """
        try:
            return cls(
                kind=str(values["kind"]),
                generation=int(values["generation"]),
                index=int(values["index"]),
                parents=tuple(str(parent) for parent in values["parents"]),
                operator=str(values["operator"]),
                basis=str(values["basis"]),
            )
        except (KeyError, OverflowError, TypeError, ValueError) as error:
            raise GenomeValueError(f"not a lineage: {error!r}") from error


@dataclass(frozen=True, eq=False)
class Genome:
    """An int8 Q-network.

    Attributes:
        spec: Its architecture.
        codes: int8 codes of each matrix, by tensor name, shape ``(out, in)``.
        scales: float32 scale per row of each matrix, by tensor name, shape ``(out,)``.
        vectors: Biases and normalizations, float32 or float16, by tensor name.
        lineage: Where it comes from.
    """

    spec: NetworkSpec
    codes: Mapping[str, NDArray[np.int8]]
    scales: Mapping[str, NDArray[np.float32]]
    vectors: Mapping[str, NDArray[np.float32] | NDArray[np.float16]]
    lineage: Lineage = field(default_factory=lambda: Lineage("student", 0, 0))

    def __post_init__(self) -> None:
        """Check names, shapes, dtypes and ranges of all tensors."""
        self._check("codes", self.codes, self.spec.matrices, ("int8",))
        self._check("scales", self.scales, self.spec.matrices, ("float32",))
        self._check("vectors", self.vectors, self.spec.vectors, ("float32", "float16"))
        for name, scales in self.scales.items():
            if not ((scales > 0) & (scales <= LARGEST_SCALE)).all():
                raise GenomeValueError(
                    f"the scales of {name} must be positive and at most {LARGEST_SCALE:.4g}"
                )
            if (self.codes[name] < -MAX_CODE).any():
                raise GenomeValueError(f"{name} holds the code -128; codes go from -127 to 127")
        for name, vector in self.vectors.items():
            if dtype_name(vector.dtype) != self.vector_dtype:
                raise GenomeShapeError(
                    f"all vectors must be {self.vector_dtype}, but {name} is {vector.dtype.name}"
                )
            if not np.isfinite(vector).all():
                raise GenomeValueError(f"{name} holds NaN or infinity")

    def _check(
        self,
        part: str,
        tensors: Mapping[str, NDArray[Any]],
        names: tuple[str, ...],
        dtypes: tuple[str, ...],
    ) -> None:
        if set(tensors) != set(names):
            raise GenomeShapeError(f"{part} must be exactly {sorted(names)}, not {sorted(tensors)}")
        for name in names:
            shape = self.spec.shapes[name][:1] if part == "scales" else self.spec.shapes[name]
            tensor = tensors[name]
            if tensor.shape != shape or all(tensor.dtype != np.dtype(name) for name in dtypes):
                raise GenomeShapeError(
                    f"{part} of {name} must be {' or '.join(dtypes)} of shape {shape}, "
                    f"not {tensor.dtype.name} of shape {tensor.shape}"
                )

    @classmethod
    def from_weights(
        cls,
        spec: NetworkSpec,
        weights: Weights,
        lineage: Lineage,
        vector_dtype: VectorDtype = "float32",
    ) -> Genome:
        """Quantize float32 weights.

        Args:
            spec: Architecture of the weights.
            weights: Float32 tensors by name.
            lineage: Where they come from; an empty ``basis`` becomes the genome's own id.
            vector_dtype: How biases and normalizations are kept.

        Raises:
            GenomeShapeError: The weights are not those of ``spec``.
            GenomeValueError: A weight is NaN or infinite, or too large for ``vector_dtype``.
        """
        spec.check(weights, f"{lineage.kind} {lineage.index} of generation {lineage.generation}")
        pairs = {name: quantize(weights[name]) for name in spec.matrices}
        with np.errstate(over="ignore"):  # an overflow becomes infinity and is refused by name
            vectors = {name: weights[name].astype(vector_dtype) for name in spec.vectors}
        genome = cls(
            spec,
            {name: codes for name, (codes, _) in pairs.items()},
            {name: scales for name, (_, scales) in pairs.items()},
            vectors,
            lineage,
        )
        return genome if lineage.basis else genome.with_lineage(replace(lineage, basis=genome.id))

    def with_lineage(self, lineage: Lineage) -> Genome:
        """Return the same network with another lineage; its id does not change."""
        return replace(self, lineage=lineage)

    @property
    def vector_dtype(self) -> VectorDtype:
        """How biases and normalizations are kept."""
        first = self.vectors[self.spec.vectors[0]]
        return "float16" if first.dtype == np.float16 else "float32"

    @cached_property
    def id(self) -> str:
        """First 12 hex digits of the SHA-256 over spec and tensors; lineage does not count."""
        digest = hashlib.sha256()
        digest.update(json.dumps(self.spec.to_dict(), sort_keys=True).encode())
        for name, tensor in self.tensors().items():
            digest.update(f"{name}:{dtype_name(tensor.dtype)}:{tensor.shape}".encode())
            digest.update(np.ascontiguousarray(tensor).tobytes())
        return digest.hexdigest()[:ID_LENGTH]

    def __getstate__(self) -> dict[str, Any]:
        """Return what travels to another process: the id as well, or else each has to hash it."""
        return {**self.__dict__, "id": self.id}

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Return all stored tensors in a fixed order; the scales of a matrix end in ``.scale``."""
        stored: dict[str, NDArray[Any]] = {}
        for name in self.spec.shapes:
            if name in self.codes:
                stored[name] = self.codes[name]
                stored[f"{name}.scale"] = self.scales[name]
            else:
                stored[name] = self.vectors[name]
        return stored

    def to_weights(self) -> dict[str, NDArray[np.float32]]:
        """Return the float32 network that this genome stands for, in the order of the spec."""
        return {
            name: dequantize(self.codes[name], self.scales[name])
            if name in self.codes
            else self.vectors[name].astype(np.float32)
            for name in self.spec.shapes
        }


@cache
def dtype_name(dtype: np.dtype[Any]) -> str:
    """Return the name of a dtype, which NumPy puts together anew each time."""
    return dtype.name
