"""Flags from pydantic models, so that a field is declared once for Python, the page, HTTP and the command line."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import typer
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from studio.errors import BadRequest, shorten

Given = dict[str, Any]
_Model = TypeVar("_Model", bound=BaseModel)
_SCALARS = (str, int, float, bool, Path)


def derived(*groups: tuple[type[BaseModel], tuple[str, ...]]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the flags of some fields of some models.

    The command is called with the context and, for each group, a dict of the flags that were given; a flag that was
    not given is absent, so that whatever lies below (a request file, the environment) shows through.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        def called(ctx: typer.Context, **flags: Any) -> None:
            given = {name: value for name, value in flags.items() if value is not None and value != []}
            command(ctx, *({name: given[name] for name in names if name in given} for _, names in groups))

        context = inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
        parameters = [context, *(flag for model, names in groups for flag in _parameters(model, names))]
        called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        called.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        called.__doc__, called.__name__ = command.__doc__, command.__name__
        return called

    return decorate


def _parameters(model: type[BaseModel], names: tuple[str, ...]) -> Iterator[inspect.Parameter]:
    for name in names:
        field = model.model_fields[name]
        option = typer.Option(flag_of(name, field), help=field.description or "", show_default=False)
        yield inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[_kind(field.annotation), option]
        )


def flag_of(name: str, field: FieldInfo) -> str:
    """`adapter_dirs` (several) becomes `--adapter-dir`, to be given several times."""
    spelled = (field.alias or name).replace("_", "-")
    return f"--{spelled.removesuffix('s') if _is_tuple(field.annotation) else spelled}"


def _is_tuple(annotation: Any) -> bool:
    return get_origin(annotation) is tuple


def _kind(annotation: Any) -> Any:
    """The type as typer knows it, always optional: None means that the flag was not given."""
    if _is_tuple(annotation):
        return list[get_args(annotation)[0]] | None  # type: ignore[misc]
    if get_origin(annotation) in {Union, UnionType}:
        annotation = next(part for part in get_args(annotation) if part is not NoneType)
    assert annotation in _SCALARS or get_origin(annotation) is Literal, annotation
    return annotation | None if annotation in _SCALARS else Union[annotation, None]  # noqa: UP007


def validated(model: type[_Model], values: Mapping[str, Any]) -> _Model:
    """Make a model of values from the command line or a file.

    Raises:
        BadRequest: names the first value that does not fit.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the request"
        raise BadRequest(f"“{place}” = {shorten(repr(first['input']))} does not fit: {first['msg']}.") from error
