"""The prompt as one sees it: asks for lines, with all that stands around them on the screen."""

from __future__ import annotations

import sys
from typing import Any

import click
from prompt_toolkit import PromptSession
from prompt_toolkit.application import run_in_terminal
from prompt_toolkit.auto_suggest import AutoSuggestFromHistory
from prompt_toolkit.buffer import Buffer, CompletionState
from prompt_toolkit.completion import DynamicCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.enums import EditingMode
from prompt_toolkit.filters import Condition
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.key_binding.vi_state import InputMode

from shell.connections import HERE
from shell.failures import DONE
from shell.prompt.completer import LineCompleter, Memory
from shell.prompt.jobs import Jobs
from shell.prompt.keys import bindings
from shell.prompt.lexer import LineLexer
from shell.prompt.offers import Offers, spot_of
from shell.prompt.pane import pane
from shell.prompt.past import Past, PastCompleter, history_path
from shell.prompt.pulse import Pulse
from shell.prompt.speech import Settings, Speech
from shell.prompt.status import Keys, status_line
from shell.prompt.style import depth, style
from shell.session import Session

MENU_LINES = 8
PANE_ROWS_MIN = 14
"""A terminal with fewer rows has no room for the help pane."""


class Screen:
    """One prompt on one terminal."""

    def __init__(
        self,
        root: click.Group,
        session: Session,
        speech: Speech,
        settings: Settings,
    ) -> None:
        """session: may switch to another cluster later."""
        self.settings = settings
        self._helped = settings["help"]
        self.help = self._helped == "on"
        self.searching: Document | None = None
        """What was typed when the search in the history began."""
        self.code = DONE
        """Of the last command."""
        self._root, self._speech = root, speech
        self._session = session
        self._follow()
        self._past = Past(self._history_path())
        self._memory = Memory(lambda: self.pulse.live)
        self._prompt = self._made()

    def _follow(self) -> None:
        """Begins to follow the cluster that the session talks to now."""
        self._switches = self._session.switches
        self._session.going.clear()
        self.pulse = Pulse(self._session, self._tell_ended)
        self.jobs = Jobs(self._session.going, lambda: self.pulse.live)
        self._begun = False

    def _history_path(self) -> Any:
        match self.settings["history"]:
            case "none":
                return None
            case "connection":
                return history_path(self._session.connection.label)
        return history_path()

    def _made(self) -> PromptSession[str]:
        completer = LineCompleter(Offers(self._root, self._memory, self._speech))
        found = PastCompleter(self._past)
        made: PromptSession[str] = PromptSession(
            message=self._message,
            prompt_continuation=self._continuation,
            multiline=True,
            history=self._past,
            completer=DynamicCompleter(lambda: found if self.searching else completer),
            complete_while_typing=Condition(self._offers_while_typing),
            reserve_space_for_menu=MENU_LINES,
            auto_suggest=AutoSuggestFromHistory(),
            lexer=LineLexer(self._root, lambda path: self.pulse.live.peek(path), self._speech),
            style=style(),
            key_bindings=bindings(self),
            bottom_toolbar=self._toolbar,
            include_default_pygments_style=False,
        )
        made.app.ttimeoutlen = 0.1
        made.app.after_render += lambda _: self._begin()
        return made

    def ask(self) -> str:
        """The next line. Raises EOFError when there is none, KeyboardInterrupt for Ctrl-C."""
        self._follow_session()
        for _, sentence in self.jobs.ended():
            click.echo(sentence, err=True)
        self.searching = None
        self._settle()
        self.title("")
        return str(self._prompt.prompt())

    def _settle(self) -> None:
        """Does as the settings say now."""
        vi = self.settings["keys"] == "vi"
        self._prompt.editing_mode = EditingMode.VI if vi else EditingMode.EMACS
        self._prompt.color_depth = depth(self.settings["colour"])
        if self.settings["help"] != self._helped:
            self._helped = self.settings["help"]
            self.help = self._helped == "on"

    def _offers_while_typing(self) -> bool:
        return self.searching is not None or self.settings["complete"] == "on"

    def lines(self) -> list[str]:
        """The lines that were typed, the oldest first."""
        return self._past.get_strings()

    def close(self) -> None:
        """Ends what goes on in the background."""
        self.pulse.close()
        if self.settings["title"] == "on":
            self._prompt.output.clear_title()
            self._prompt.output.flush()

    def title(self, doing: str) -> None:
        """Sets the title of the terminal: what it does, and where."""
        if self.settings["title"] != "on" or not sys.stdout.isatty():
            return
        place = "@".join(filter(None, ["pvc", self._place()]))
        self._prompt.output.set_title(f"{doing} — {place}" if doing else place)
        self._prompt.output.flush()

    def _begin(self) -> None:
        """Once the first prompt is on the screen: nobody waits for the connection."""
        if not self._begun:
            self._begun = True
            self.pulse.start(self._prompt.app.invalidate, self._arrived)

    def _follow_session(self) -> None:
        """Another connection is in use: what is known of the former one goes."""
        if self._session.switches != self._switches:
            self.pulse.close()
            self._follow()

    def _arrived(self) -> None:
        app = self._prompt.app
        if app.is_running and app.loop is not None:
            app.loop.call_soon_threadsafe(self._complete_again)

    def _complete_again(self) -> None:
        """Names came that were not known yet when the menu was opened."""
        buffer = self._prompt.default_buffer
        wants = self._offers_while_typing() and buffer.text and not buffer.complete_state
        if wants and self._memory.missed:
            self._memory.missed = False
            buffer.start_completion(select_first=False)

    def _tell_ended(self, operation: Any) -> None:
        """An operation has ended; above the prompt, if it was begun here."""
        app = self._prompt.app
        if operation.name not in self._session.going or not app.is_running or app.loop is None:
            return

        def told() -> None:
            sentences = [sentence for _, sentence in self.jobs.ended()]
            if sentences:
                run_in_terminal(lambda: print("\n".join(sentences), flush=True))

        app.loop.call_soon_threadsafe(app.loop.call_soon, told)

    def search(self, buffer: Buffer) -> None:
        """Begins to look for a line in the history."""
        self.searching = buffer.document
        buffer.cursor_position = len(buffer.text)
        buffer.start_completion(select_first=False)

    def end_search(self, buffer: Buffer, *, found: bool) -> None:
        """Takes the line that is chosen, the best if none is; or what was typed before."""
        before, state = self.searching, buffer.complete_state
        self.searching = None
        if not found and before is not None:
            buffer.document = before
        elif isinstance(state, CompletionState) and state.completions:
            text = (state.current_completion or state.completions[0]).text
            buffer.document = Document(text)
        buffer.complete_state = None

    def _place(self) -> str:
        """What the connection is called: nothing for the one on this machine, and the cluster's
        name, once it is known, for one that has no name of its own."""
        chosen = self._session.connection
        if chosen == HERE:
            return ""
        return chosen.name or self.pulse.picture.name or chosen.address.rpartition("/")[2]

    def _message(self) -> FormattedText:
        if self.searching is not None:
            return FormattedText([("class:prompt.more", "history"), ("", "> ")])
        bad = self.code != DONE
        shown = [("class:prompt", "pvc")]
        if place := self._place():
            shown += [("class:prompt.place", f"@{place}")]
        if context := self._speech.context:
            shown += [("class:prompt.context", f" {context}")]
        if bad:
            shown += [("class:prompt.bad", f" [{self.code}]")]
        end = "class:prompt.bad" if bad else "class:prompt"
        return FormattedText([*shown, (end, ">"), ("", " ")])

    def _continuation(self, width: int, line: int, wrapped: int) -> FormattedText:
        return FormattedText([("class:prompt.more", "… ".rjust(width))])

    def _toolbar(self) -> FormattedText:
        size = self._prompt.output.get_size()
        lines = self._pane(size.columns, size.rows) if self.help else []
        status = status_line(self.pulse.picture, self._keys(), size.columns)
        shown: list[tuple[str, str]] = []
        for line in lines:
            shown += [*line, ("", "\n")]
        return FormattedText([*shown, *status])

    def _pane(self, columns: int, rows: int) -> list[Any]:
        if rows < PANE_ROWS_MIN or self.searching is not None:
            return []
        buffer = self._prompt.default_buffer
        spot = spot_of(self._root, buffer.text, buffer.cursor_position, self._speech)
        told = pane(spot, self._row, columns, (rows - MENU_LINES) // 2)
        return [[("class:pane.rule", "─" * (columns - 1))], *told]

    def _row(self, collection: str, name: str) -> Any:
        return self.pulse.live.rows(collection).row(name)

    def _keys(self) -> Keys:
        app = self._prompt.app
        vi = app.editing_mode is EditingMode.VI
        mode = "insert" if app.vi_state.input_mode is InputMode.INSERT else "normal"
        return Keys(vi, mode if vi else "", self.help, self._speech.context)
