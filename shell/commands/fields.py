"""Options and arguments that are fields of the contract: their values are checked by the contract's
rules before anything is sent, put into messages, and what the services say of a field is told of
the option that was typed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from shell.measures import size as size_words
from shell.tree import F, Size

MIB = 1024**2


class _Field(click.Parameter):
    """What options and arguments of fields have in common. path: "vm.spec.cpu.vcpus": the word of
    a kind, or the name of a message, then the field in it."""

    def __init__(
        self, *args: Any, path: str, per: int = 1, zero: bool = False, **kwargs: Any
    ) -> None:
        """per: how many of what is typed make one of the field's: bytes in a MiB. zero: may be
        typed, for none or for the default."""
        super().__init__(*args, **kwargs)
        self.path, self.per, self.zero = path, per, zero

    def process_value(self, ctx: click.Context, value: Any) -> Any:
        """Checked too."""
        return self.checked(super().process_value(ctx, value))

    def descriptor(self) -> Any:
        """The field in the contract."""
        from shell.contract.fields import find

        root, _, path = self.path.partition(".")
        return find(message_called(root), path)

    def checked(self, value: Any) -> Any:
        """The value as it is. Raises BadParameter when it breaks a rule of the contract."""
        from shell.contract.fields import fault

        field = self.descriptor()
        told: Any = size_words if isinstance(self.type, Size) else str
        for one in value if isinstance(value, list | tuple) else (value,):
            if one is None or not isinstance(one, int | float | str) or isinstance(one, bool):
                continue
            typed = one if isinstance(one, str) else one // self.per
            if wrong := fault(field, typed, lambda n: told(n * self.per), zero=self.zero):
                shown = repr(one) if isinstance(one, str) else told(one)
                raise click.BadParameter(f"must {wrong} (got {shown})", param=self)
        return value

    @property
    def typed(self) -> str:
        """How a person writes it: "--memory", "NAME"."""
        if isinstance(self, click.Option):
            return next((one for one in self.opts if one.startswith("--")), self.opts[0])
        assert isinstance(self, click.Argument)
        return self.human_readable_name


class FieldOption(_Field, click.Option):
    """An option that is a field."""


class FieldArgument(_Field, click.Argument):
    """An argument that is a field."""


def field(path: str, *names: str, **kwargs: Any) -> Callable[[F], F]:
    """An option that is a field."""
    return click.option(*names, cls=FieldOption, path=path, **kwargs)


def argument(path: str, name: str, **kwargs: Any) -> Callable[[F], F]:
    """An argument that is a field."""
    return click.argument(name, cls=FieldArgument, path=path, **kwargs)


def message_called(word: str) -> Any:
    """The descriptor of a message: by the word of its kind ("vm"), or by its name."""
    from shell.contract.kinds import kind_called
    from shell.contract.methods import modules

    if kind := kind_called(word):
        return kind.message
    from google.protobuf import descriptor_pool

    packages = dict.fromkeys(module.DESCRIPTOR.package for module in modules())
    for package in packages:
        try:
            return descriptor_pool.Default().FindMessageTypeByName(f"{package}.{word}")
        except KeyError:
            continue
    raise LookupError(f"no message is called {word}")


def fields_of(command: click.Command) -> list[Any]:
    """The options and arguments of a command that are fields."""
    return [one for one in command.params if isinstance(one, _Field)]


def put(message: Any, root: str, given: Mapping[str, Any], command: click.Command | None = None
        ) -> list[str]:  # fmt: skip
    """Sets the fields of a message whose options were given; gives their paths, for an update mask.

    root: what the options' paths begin with: "vm". command: the one that runs, unless told.
    """
    command = command or click.get_current_context().command
    paths = []
    for option in fields_of(command):
        head, _, path = option.path.partition(".")
        value = given.get(str(option.name))
        if head == root and value is not None and value != ():
            _put(message, path, value, option)
            paths.append(path)
    return paths


def _put(message: Any, path: str, value: Any, option: Any) -> None:
    *outer, name = path.split(".")
    for step in outer:
        message = getattr(message, step)
    field = message.DESCRIPTOR.fields_by_name[name]
    if isinstance(value, Mapping) or (field.is_repeated and _is_map(field)):
        getattr(message, name).update(dict(value))
    elif field.is_repeated:
        items = [one for one in value if one != ""]
        message.ClearField(name)
        getattr(message, name).extend([plain(field, one, option) for one in items])
    elif field.message_type is not None:
        getattr(message, name).CopyFrom(value)
    else:
        setattr(message, name, plain(field, value, option))


def _is_map(field: Any) -> bool:
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


def plain(field: Any, value: Any, option: Any) -> Any:
    """A value as its field has it: enums by their words, names in full, sizes in its unit."""
    from pvc_client.names import full_name
    from shell.contract.fields import enum_words, rules

    if field.enum_type is not None:
        names = {word: name for name, word in enum_words(field.enum_type).items()}
        return field.enum_type.values_by_name[names[value]].number
    if isinstance(value, str) and value and (path := rules(field).resource):
        return full_name(path, value, option.typed)
    return value // option.per if isinstance(value, int) and option.per > 1 else value


def told_of_options(error: Any, command: click.Command) -> None:
    """Makes an error of a service speak of the option that was typed instead of the field."""
    wanted = re.sub(r"\[[^\]]*\]", "", error.field or "")
    option = next((one for one in fields_of(command) if _is(one, wanted)), None) if wanted else None
    if option is None:
        return
    said = error.message
    for words in (error.field, f"{error.field}".partition(".")[2]):
        if words and re.search(rf"(?<![\w.]){re.escape(words)}(?![\w\[])", said):
            error.message = said.replace(words, option.typed)
            break
    error.field = option.typed
    error.args = (error.message,)


def _is(option: Any, wanted: str) -> bool:
    """Whether a path in a request is the option's field: its beginning names what carries it."""
    rest = option.path.partition(".")[2]
    return wanted in (option.path, rest) or wanted.partition(".")[2] == rest or (
        option.path[:1].isupper() and wanted.endswith(f".{rest}")
    )  # fmt: skip


def nothing_given(paths: Sequence[str]) -> None:
    """Raises UsageError when there is nothing to change."""
    if not paths:
        raise click.UsageError("nothing to change: give at least one option")
