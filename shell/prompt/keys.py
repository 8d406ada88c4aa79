"""What the keys do at the prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prompt_toolkit.buffer import Buffer
from prompt_toolkit.completion import CompleteEvent, get_common_complete_suffix
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
    """Goes on in the menu; takes the only offer there is; else writes what all have in common."""
    state = buffer.complete_state
    if state is not None and (len(state.completions) > 1 or state.current_completion is not None):
        buffer.complete_next()
        return
    document, event = buffer.document, CompleteEvent(completion_requested=True)
    offers = list(buffer.completer.get_completions(document, event))
    if len(offers) == 1:
        buffer.apply_completion(offers[0])
        is_whole = not offers[0].text.endswith(("/", "="))
        if is_whole and buffer.document.is_cursor_at_the_end:
            buffer.insert_text(" ")
    elif offers:
        buffer.insert_text(get_common_complete_suffix(document, offers))
        buffer.start_completion(select_first=False)
