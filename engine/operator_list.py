"""What there is to know of each operator, read from its class and its docstring."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from engine.docstrings import Docstring, read_docstring
from engine.plain import plain
from engine.strict_yaml import write_yaml_inline
from strategies.errors import PluginError, StrategyError, UnknownOperatorError
from strategies.plugins import REGISTRIES, operators_in_file
from strategies.registry import FILE_MODULE, OWN_FILE, Registry, suggestion
from strategies.user_code import import_class, shown, told

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")

KINDS = tuple(registry.kind for registry in REGISTRIES)
BUILT_IN = "built in"
VARIES: Literal["varies"] = "varies"


@dataclass(frozen=True, slots=True)
class ParameterFacts:
    """One argument of an operator's constructor.

    Attributes:
        name: Its name.
        required: Whether it has no default.
        default: Its default, a plain value where there is one, else text.
        type: Its annotation as it is written, or the choices that it leaves; may be empty.
        meaning: What the docstring says of it.
    """

    name: str
    required: bool
    default: Any
    type: str
    meaning: str

    @property
    def text(self) -> str:
        """Name and default as an option would be written, ``share=0.5``."""
        return self.name if self.required else f"{self.name}={write_yaml_inline(self.default)}"


@dataclass(frozen=True, slots=True)
class OperatorFacts:
    """One operator.

    Attributes:
        kind: ``crossover``, ``mutation`` or ``selection``.
        name: Name in configurations.
        summary: What it does, in a sentence.
        explanation: Formula and conventions, a few paragraphs.
        parameters: Arguments of its constructor.
        n_parents: How many parents a crossover takes, by default; ``varies`` where only an
            instance can tell; None for other kinds.
        any_number: Whether an argument sets that number.
        needs: What it reads besides weights.
        same_widths: Whether the parents of a crossover must share one architecture; None for other
            kinds.
        idempotent: Whether a crossover gives equal parents back; None for other kinds.
        step_size: The argument of a mutation that self-adaptation changes, or None.
        source: Where the method is from.
        origin: ``built in``, the installed distribution, the file, or the module.
        target: ``module:Class``, of a plug-in file ``file.py:Class``.
        file: File of the class, or empty.
    """

    kind: str
    name: str
    summary: str
    explanation: str
    parameters: tuple[ParameterFacts, ...]
    n_parents: int | Literal["varies"] | None
    any_number: bool
    needs: tuple[str, ...]
    same_widths: bool | None
    idempotent: bool | None
    step_size: str | None
    source: str
    origin: str
    target: str
    file: str


def list_operators(kind: str | None = None) -> tuple[tuple[OperatorFacts, ...], tuple[str, ...]]:
    """Return what is known of all operators, and what is wrong with those that cannot be loaded.

    Args:
        kind: One kind; None for all.

    Raises:
        StrategyError: An installed plug-in declares a name that is taken.
    """
    found, problems = [], []
    for registry in _registries(kind):
        for name in registry.available():
            try:
                found.append(facts_of(registry, registry.get(name)))
            except StrategyError as error:  # of one plug-in; the others are as good
                problems.append(str(error))
    return tuple(found), tuple(problems)


def find_operators(target: str, kind: str | None = None) -> list[tuple[Registry[Any], type[Any]]]:
    """Return the operators that somebody may mean, at least one, each with its registry.

    Args:
        target: A registered name, which operators of several kinds may have; ``file.py:Class``;
            ``file.py`` for all operators of a file; or ``module:Class``.
        kind: One kind; None for all.

    Raises:
        UnknownOperatorError: There is none of this name.
        PluginError: A file or module cannot be loaded, or has no such operator.
    """
    path, colon, name = target.rpartition(":") if not target.endswith(".py") else (target, "", "")
    if path.endswith(".py"):
        found = _of_kind(operators_in_file(path), kind, path)
        return _called(found, name, path) if colon else found
    if colon:
        cls = import_class(f"operator {target}", path, name)
        pairs = [(registry, cls) for registry in REGISTRIES if _derives(cls, registry)]
        if not pairs:
            bases = ", ".join(registry.base.__name__ for registry in REGISTRIES)
            raise PluginError(f"{target} is no operator: it derives from none of {bases}")
        return _of_kind(pairs, kind, target)
    registries = [registry for registry in _registries(kind) if target in registry.available()]
    if registries:
        return [(registry, registry.get(target)) for registry in registries]
    known = sorted({name for each in _registries(kind) for name in each.available()})
    file = f"{target}.py"
    guess = f" Did you mean {file!r}?" if Path(file).is_file() else suggestion(target, known)
    raise UnknownOperatorError(
        f"no {kind or 'operator'} named {target!r}.{guess} "
        f"Available: {', '.join(known)}. {OWN_FILE}"
    )


def facts_of(registry: Registry[Any], cls: type[Any]) -> OperatorFacts:
    """Return what is known of one class.

    Args:
        registry: The registry of its kind; the class need not be registered.
        cls: The class.

    Raises:
        PluginError: Something cannot be read, or is not what the class should declare.
    """
    try:
        return _read(registry, cls)
    except Exception as error:  # a class is code of the user's own
        what = f"{registry.kind} {getattr(cls, 'name', cls.__name__)!r} of {_target(cls)}"
        raise PluginError(f"cannot read the {what}: {told(error)}") from error


def _read(registry: Registry[Any], cls: type[Any]) -> OperatorFacts:
    text = read_docstring(cls)
    parameters = _parameters(cls, text)
    set_by = next((each for each in parameters if each.name == "n_parents"), None)
    n_parents = getattr(cls, "n_parents", None)
    if set_by is not None and not set_by.required:
        n_parents = set_by.default
    if hasattr(registry.base, "n_parents") and type(n_parents) is not int:
        n_parents = VARIES
    name = str(getattr(cls, "name", ""))
    return OperatorFacts(
        kind=registry.kind,
        name=name,
        summary=text.summary,
        explanation=text.explanation,
        parameters=parameters,
        n_parents=n_parents,
        any_number=set_by is not None,
        needs=_needs(cls),
        same_widths=_if(bool, getattr(cls, "same_widths", None)),
        idempotent=_if(bool, getattr(cls, "idempotent", None)),
        step_size=_if(str, getattr(cls, "step_size", None)),
        source=text.source,
        origin=_origin(registry, cls, name),
        target=_target(cls),
        file=_file(cls),
    )


def _registries(kind: str | None) -> list[Registry[Any]]:
    return [registry for registry in REGISTRIES if kind in (None, registry.kind)]


def _derives(cls: object, registry: Registry[Any]) -> bool:
    return isinstance(cls, type) and issubclass(cls, registry.base)


def _of_kind(
    found: Sequence[tuple[Registry[Any], type[Any]]], kind: str | None, where: str
) -> list[tuple[Registry[Any], type[Any]]]:
    kept = [pair for pair in found if kind in (None, pair[0].kind)]
    if not kept:
        raise PluginError(f"{where} is no {kind}, but a {found[0][0].kind}")
    return kept


def _called(
    found: Sequence[tuple[Registry[Any], type[Any]]], name: str, path: str
) -> list[tuple[Registry[Any], type[Any]]]:
    """Return the operators of a file that have this class name, or this name."""
    kept = [pair for pair in found if name in (pair[1].__name__, getattr(pair[1], "name", None))]
    if not kept:
        known = [cls.__name__ for _, cls in found]
        raise PluginError(
            f"{path} defines no operator {name!r}.{suggestion(name, known)} "
            f"It defines: {', '.join(known)}"
        )
    return kept


def _if(kind: type[Any], value: Any) -> Any:
    """Return a value of a class, or None where only an instance can tell it."""
    return value if isinstance(value, kind) else None


def _needs(cls: type[Any]) -> tuple[str, ...]:
    needs = getattr(cls, "needs", ())
    if not isinstance(needs, tuple) or not all(isinstance(need, str) for need in needs):
        raise TypeError(f"needs must be a tuple of names, not {shown(needs)}")
    return needs


def _parameters(cls: type[Any], text: Docstring) -> tuple[ParameterFacts, ...]:
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    hints = _hints(cls)
    return tuple(
        ParameterFacts(
            name=each.name,
            required=each.default is inspect.Parameter.empty,
            default=None if each.default is inspect.Parameter.empty else _default(each),
            type=_type(each, hints.get(each.name)),
            meaning=text.arguments.get(each.name, ""),
        )
        for each in inspect.signature(cls).parameters.values()
        if each.kind not in variadic
    )


def _hints(cls: type[Any]) -> dict[str, Any]:
    """Return the annotations of the constructor with their names looked up, as far as possible."""
    try:
        return get_type_hints(cls.__init__)
    except Exception:  # noqa: BLE001  # whatever user code means by an annotation; its text remains
        return {}


def _type(parameter: inspect.Parameter, hint: Any) -> str:
    """Return an annotation, or the choices where it is a Literal, which may have another name."""
    if get_origin(hint) is Literal:
        return " | ".join(str(choice) for choice in get_args(hint))
    annotation = parameter.annotation
    if annotation is inspect.Parameter.empty:
        return ""
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return _ADDRESS.sub("", text)


def _default(parameter: inspect.Parameter) -> Any:
    """Return what a configuration can hold, or what the leaderboard would show."""
    return plain({parameter.name: parameter.default})[parameter.name]


def _origin(registry: Registry[Any], cls: type[Any], name: str) -> str:
    if cls.__module__.startswith("strategies."):
        return BUILT_IN
    if cls.__module__.startswith(FILE_MODULE):
        return _file(cls)
    return registry.distribution(name) or f"module {cls.__module__}"


def _target(cls: type[Any]) -> str:
    in_file = cls.__module__.startswith(FILE_MODULE)
    return f"{_file(cls) if in_file else cls.__module__}:{cls.__qualname__}"


def _file(cls: type[Any]) -> str:
    try:
        return str(Path(inspect.getfile(cls)))
    except (TypeError, OSError):  # a class of an interactive session
        return ""
