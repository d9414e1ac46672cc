"""Code of the user's own: importing it, and telling what it raised and where."""

from __future__ import annotations

import importlib
import inspect
import reprlib
import traceback
from typing import Any

from populations.reasons import shortened
from strategies.errors import PluginError


def import_class(what: str, module: str, attribute: str) -> Any:
    """Return what a module holds under a dotted name.

    Args:
        what: What is imported, for the error.
        module: Name of the module.
        attribute: Name in it.

    Raises:
        PluginError: There is no such module or name, or importing it fails in any way.
    """
    if module.endswith(".py"):
        raise PluginError(
            f"cannot import the {what}, which is in a file: use --plugin {module} (plugins: "
            f"[{module}]), and call it by the 'name' in {attribute or 'its class'}"
        )
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except ModuleNotFoundError as error:
        raise PluginError(
            f"cannot import the {what}: {error}; install it, or load its file: "
            "--plugin FILE, or plugins: [FILE] in a configuration"
        ) from error
    except Exception as error:  # a module is code of the user's own
        raise PluginError(f"cannot import the {what}: {told(error)}") from error
    return found


def where_raised(error: BaseException, file: str) -> str:
    """Return `` in line 12`` if an error came through a file, or nothing."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == file]
    return f" in line {lines[-1]}" if lines else ""


def raised(error: BaseException, operator: object) -> str:
    """Return that an error was raised, by name, with its text and where in the operator's file.

    Args:
        error: What was raised.
        operator: The operator, or its class.
    """
    text = text_of(error)
    try:
        file = inspect.getfile(operator if isinstance(operator, type) else type(operator))
    except (TypeError, OSError):  # a class of a notebook or an interactive session
        file = ""
    where = where_raised(error, file)
    if isinstance(error, SystemExit):
        return f"calls sys.exit{where}"
    return f"raises {type(error).__name__}{where}{f': {text}' if text else ''}"


def told(error: Exception) -> str:
    """Return the text of an error, with its name where the text alone says little."""
    if isinstance(error, TypeError | ValueError | ImportError | AttributeError):
        return text_of(error)
    return f"{type(error).__name__}: {text_of(error)}"


def text_of(error: BaseException) -> str:
    """Return the text of an error on one line, empty where it cannot give one."""
    try:
        return shortened(str(error))
    except Exception:  # noqa: BLE001  # the class of an error may be the user's own
        return ""


def shown(value: object) -> str:
    """Return a value as Python writes it, on one line, and short."""
    return " ".join(_SHORT.repr(value).split())


_SHORT = reprlib.Repr()
_SHORT.maxother = _SHORT.maxstring = 80
