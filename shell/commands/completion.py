"""`pvc completion`: what a shell must be told for Tab to complete commands, options, their values
and live names; and how it is told for good.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from shell.tree import Group, command

BASH = """\
# Completion of pvc for bash: eval "$(pvc completion bash)"
_pvc_complete() {
    local mark text help parts=
    COMPREPLY=()
    while IFS=$'\\t' read -r mark text help; do
        case $mark in
            word) COMPREPLY+=("$text") ;;
            part) COMPREPLY+=("$text"); parts=yes ;;
            files) compopt -o default ;;
        esac
    done < <(_PVC_COMPLETE=bash _PVC_LINE="${COMP_LINE:0:COMP_POINT}" _PVC_WORD="$2" \\
        "$1" 2>/dev/null)
    if [[ $parts ]]; then compopt -o nospace; fi
    return 0
}
complete -o nosort -F _pvc_complete pvc
"""
ZSH = """\
#compdef pvc
# Completion of pvc for zsh: eval "$(pvc completion zsh)", or this file as _pvc in the fpath.
_pvc() {
    local mark text help
    local -a whole begun
    while IFS=$'\\t' read -r mark text help; do
        text=${text//:/\\\\:}${help:+:$help}
        case $mark in
            word) whole+=("$text") ;;
            part) begun+=("$text") ;;
            files) _files ;;
        esac
    done < <(_PVC_COMPLETE=zsh _PVC_LINE="${(j: :)words[1,CURRENT-1]} $PREFIX" \\
        _PVC_WORD="$PREFIX" $words[1] 2>/dev/null)
    (( $#whole )) && _describe -V pvc whole -Q
    (( $#begun )) && _describe -V pvc begun -Q -S ''
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _pvc "$@"
else
    compdef _pvc pvc
fi
"""
FISH = """\
# Completion of pvc for fish: pvc completion fish | source
function __pvc_complete
    set -l line (commandline -cp)
    set -l word (commandline -ct)
    for one in (env _PVC_COMPLETE=fish _PVC_LINE="$line" _PVC_WORD="$word" pvc 2>/dev/null)
        set -l told (string split -m 2 \\t -- $one)
        switch $told[1]
            case word part
                printf '%s\\t%s\\n' $told[2] $told[3]
            case files
                __fish_complete_path $word
        end
    end
end
complete -c pvc -f -a '(__pvc_complete)'
"""


@dataclass(frozen=True, slots=True)
class Kind:
    """A shell."""

    script: str
    base: str
    """Variable of the folder below which it looks, with what holds when that is not set."""
    usual: str
    path: str
    then: str
    """What is to be done once, besides."""


KINDS = {
    "bash": Kind(
        BASH, "XDG_DATA_HOME", ".local/share", "bash-completion/completions/pvc",
        "bash reads it if the package bash-completion is there; if not, put into ~/.bashrc:\n"
        "  source {path}",
    ),
    "zsh": Kind(
        ZSH, "XDG_DATA_HOME", ".local/share", "zsh/site-functions/_pvc",
        "put into ~/.zshrc, unless it is there:\n"
        "  fpath=({folder} $fpath); autoload -Uz compinit; compinit",
    ),
    "fish": Kind(FISH, "XDG_CONFIG_HOME", ".config", "fish/completions/pvc.fish", ""),
}  # fmt: skip


@click.group(cls=Group)
def completion() -> None:
    """Tab completion for your shell: commands, options, values, and names that there are."""


def _printing(shell: str, example: str) -> None:
    @command(completion, shell, example, f"pvc completion install {shell}")
    def show(session: Any) -> None:
        click.echo(KINDS[shell].script, nl=False)

    show.help = f"Print what {shell} must be told."
    show.short_help = show.help


_printing("bash", 'eval "$(pvc completion bash)"          # in ~/.bashrc')
_printing("zsh", 'eval "$(pvc completion zsh)"           # in ~/.zshrc, after compinit')
_printing("fish", "pvc completion fish | source           # in ~/.config/fish/config.fish")


@command(completion, "install", "pvc completion install", "pvc completion install zsh")
@click.argument(
    "shell",
    required=False,
    type=click.Choice(list(KINDS)),
    help="Which shell; yours without it.",
)
def install(session: Any, shell: str | None) -> None:
    """Have new shells of yours complete pvc: writes one file into your home folder."""
    name = shell or Path(os.environ.get("SHELL", "")).name
    if name not in KINDS:
        raise click.UsageError(f"which shell? One of {', '.join(KINDS)}")
    kind = KINDS[name]
    base = os.environ.get(kind.base, "")
    path = (Path(base) if base else Path.home() / kind.usual) / kind.path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(kind.script, encoding="utf-8")
    session.say(f"{path} is written; new shells complete pvc")
    if kind.then:
        session.note(kind.then.format(path=path, folder=path.parent))
