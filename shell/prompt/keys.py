"""What the keys do at the prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prompt_toolkit.buffer import Buffer
from prompt_toolkit.enums import EditingMode
from prompt_toolkit.filters import Condition, has_completions
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

from shell.language.line import is_unfinished

if TYPE_CHECKING:
    from shell.prompt.screen import Screen


def bindings(screen: Screen) -> KeyBindings:
    """All keys that are not as everywhere."""
    keys = KeyBindings()
    searching = Condition(lambda: screen.searching is not None)
    _editing(keys, screen)
    _completing(keys)

    @keys.add("c-r", filter=~searching)
    def _search(event: KeyPressEvent) -> None:
        screen.search(event.current_buffer)

    @keys.add("c-r", filter=searching & has_completions)
    def _next(event: KeyPressEvent) -> None:
        event.current_buffer.complete_next()

    @keys.add("c-g", filter=searching)
    @keys.add("escape", filter=searching, eager=True)
    @keys.add("c-c", filter=searching)
    def _give_up(event: KeyPressEvent) -> None:
        screen.end_search(event.current_buffer, found=False)

    return keys


def _editing(keys: KeyBindings, screen: Screen) -> None:
    @keys.add("f2")
    def _help(event: KeyPressEvent) -> None:
        screen.help = not screen.help

    @keys.add("f4")
    def _mode(event: KeyPressEvent) -> None:
        is_vi = event.app.editing_mode is EditingMode.VI
        screen.settings.set("keys", "emacs" if is_vi else "vi")
        event.app.editing_mode = EditingMode.EMACS if is_vi else EditingMode.VI

    @keys.add("enter")
    def _enter(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if screen.searching is not None:
            screen.end_search(buffer, found=True)
        elif buffer.complete_state is not None and buffer.complete_state.current_completion:
            buffer.complete_state = None
        elif is_unfinished(buffer.text):
            buffer.cursor_position = len(buffer.text)
            buffer.newline(copy_margin=False)
        else:
            buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def _new_line(event: KeyPressEvent) -> None:
        event.current_buffer.newline(copy_margin=False)


def _completing(keys: KeyBindings) -> None:
    @keys.add("tab")
    def _tab(event: KeyPressEvent) -> None:
        tab(event.current_buffer)

    @keys.add("c-@")
    def _offer(event: KeyPressEvent) -> None:
        event.current_buffer.start_completion(select_first=False)


def tab(buffer: Buffer) -> None:
    """Goes on in the menu; takes the only offer there is; else opens the menu."""
    state = buffer.complete_state
    if state is None:
        buffer.start_completion(insert_common_part=True)
    elif len(state.completions) == 1 and state.current_completion is None:
        buffer.apply_completion(state.completions[0])
        if not state.completions[0].text.endswith("/") and not buffer.document.current_char:
            buffer.insert_text(" ")
    else:
        buffer.complete_next()
